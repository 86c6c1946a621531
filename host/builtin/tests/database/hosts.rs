//! Connections with several hosts: a primary and the standby that takes over, hosts that are away, and hosts that are silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use leasehold_devpg::{DevPg, Options, Stop};
use leasehold_model::Ttl;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Issued, MEMBER, World, log_in, own_server};

/// A primary and a standby that follows it.
fn pair() -> (World, Arc<DevPg>) {
    let world = World::on(Arc::new(own_server(Options::default())));
    let standby = Arc::new(world.pg.standby().unwrap());
    assert_eq!(standby.psql("SELECT pg_is_in_recovery()").unwrap(), "t");
    (world, standby)
}

async fn connect(world: &World, ports: &[u16], more: &str) {
    let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let url = format!("postgresql://{{{{username}}}}:{{{{password}}}}@{}/myapp?{more}", hosts.join(","));
    world.connect("pg", json!({ "connection_url": url })).await;
    world.role("readonly", MEMBER, json!({})).await;
}

/// Until the standby has all that the primary has.
fn catch_up(primary: &DevPg, standby: &DevPg) {
    let written = primary.psql("SELECT pg_current_wal_flush_lsn()").unwrap();
    let began = Instant::now();
    while standby.psql(&format!("SELECT pg_last_wal_replay_lsn() >= '{written}'")).unwrap() != "t" {
        assert!(began.elapsed() < Duration::from_secs(30), "the standby does not catch up");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn stands(pg: &DevPg, issued: &Issued) -> bool {
    pg.psql(&format!("SELECT count(*) FROM pg_roles WHERE rolname = '{}'", issued.username)).unwrap() == "1"
}

async fn lives_and_ends(world: &World, primary: &DevPg) {
    let issued = world.issue("readonly").await;
    assert!(stands(primary, &issued));
    world.renew(&issued, world.clock_now() + Ttl::from_secs(600)).await.unwrap();
    world.revoke(&issued).await.unwrap();
    assert!(!stands(primary, &issued));
}

/// Accepts and never says a word.
async fn silent() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_go_to_the_primary_in_whatever_order_the_hosts_stand() {
    let (world, standby) = pair();
    let (primary, behind, closed) = (world.pg.port(), standby.port(), {
        let (listener, port) = silent().await;
        drop(listener);
        port
    });
    for ports in [vec![primary, behind], vec![behind, primary], vec![closed, behind, primary]] {
        for more in [
            "",
            "target_session_attrs=any",
            "target_session_attrs=read-write",
            "target_session_attrs=primary",
            "load_balance_hosts=random",
        ] {
            connect(&world, &ports, more).await;
            lives_and_ends(&world, &world.pg).await;
        }
    }
    let nowhere = json!({"connection_url": format!(
        "postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{closed},127.0.0.1:{behind}/myapp"
    ), "password": world.pg.admin_password()});
    let said = world.write("config/pg", nowhere).await.unwrap_err().to_string();
    for part in
        [format!("127.0.0.1:{closed}: error connecting"), format!("127.0.0.1:{behind}: server is in hot standby mode")]
    {
        assert!(said.contains(&part), "{said}");
    }
    assert_eq!(said.matches(&format!("127.0.0.1:{closed}")).count(), 1, "each host stands beside what it met: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_host_takes_its_share_of_time_once() {
    let world = World::on(Arc::new(own_server(Options::default())));
    let (_silent, port) = silent().await;
    let began = Instant::now();
    connect(&world, &[port, port, world.pg.port()], "connect_timeout=2").await;
    lives_and_ends(&world, &world.pg).await;
    // The pool of the write and that of the lease have met each silent host once.
    assert!(began.elapsed() < Duration::from_secs(14), "{:?}", began.elapsed());
    let began = Instant::now();
    let (one, two, three) = tokio::join!(world.issue("readonly"), world.issue("readonly"), world.issue("readonly"));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    for issued in [one, two, three] {
        world.revoke(&issued).await.unwrap();
    }
}

/// The first host is killed, or stops answering: what was asked for is done on the other one, by the same request.
#[tokio::test(flavor = "multi_thread")]
async fn leases_go_on_where_the_standby_has_taken_over() {
    for is_killed in [true, false] {
        let (world, standby) = pair();
        connect(&world, &[world.pg.port(), standby.port()], "connect_timeout=2").await;
        let (renewed, revoked) = (world.issue("readonly").await, world.issue("readonly").await);
        catch_up(&world.pg, &standby);
        if is_killed {
            world.pg.stop(Stop::Kill).unwrap()
        } else {
            world.pg.pause().unwrap()
        }
        standby.promote().unwrap();
        tokio::time::sleep(Duration::from_millis(1_100)).await;

        let began = Instant::now();
        let until = world.clock_now() + Ttl::from_secs(7_200);
        world.renew(&renewed, until).await.unwrap();
        let valid =
            format!("SELECT rolvaliduntil > now() + '100min' FROM pg_roles WHERE rolname = '{}'", renewed.username);
        assert_eq!(standby.psql(&valid).unwrap(), "t");
        world.revoke(&revoked).await.unwrap();
        assert!(!stands(&standby, &revoked));
        lives_and_ends(&world, &standby).await;
        let fresh = world.issue("readonly").await;
        log_in(&standby, &fresh.username, &fresh.password, "myapp").await.unwrap();
        // All of it within the time that one request has.
        assert!(began.elapsed() < Duration::from_secs(90), "{:?}", began.elapsed());
        if !is_killed {
            world.pg.resume().unwrap();
        }
    }
}

/// A port that leads wherever it is told to, as an address does that moves with the primary.
async fn moving(to: &Arc<AtomicU16>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, to) = (listener.local_addr().unwrap().port(), Arc::clone(to));
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let to = to.load(Ordering::SeqCst);
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    port
}

/// The address has moved, and the sessions that are open lead to a server that takes no writes.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_on_a_server_that_takes_no_writes_are_left() {
    let (world, standby) = pair();
    let to = Arc::new(AtomicU16::new(world.pg.port()));
    connect(&world, &[moving(&to).await], "").await;
    let (renewed, revoked) = (world.issue("readonly").await, world.issue("readonly").await);
    catch_up(&world.pg, &standby);
    let until = world.clock_now() + Ttl::from_secs(600);
    for step in ["issue", "renew", "revoke"] {
        // Sessions on the standby come into the pool.
        to.store(standby.port(), Ordering::SeqCst);
        world.write("reset/pg", json!({})).await.unwrap();
        to.store(world.pg.port(), Ordering::SeqCst);
        match step {
            "issue" => assert!(stands(&world.pg, &world.issue("readonly").await)),
            "renew" => world.renew(&renewed, until).await.unwrap(),
            _ => world.revoke(&revoked).await.unwrap(),
        }
    }
    assert!(!stands(&world.pg, &revoked));
    // Where there is nothing else, the error is PostgreSQL's.
    to.store(standby.port(), Ordering::SeqCst);
    world.write("reset/pg", json!({})).await.unwrap();
    let said = world.issue_fails("readonly").await;
    assert!(said.contains("cannot execute CREATE ROLE in a read-only transaction (SQLSTATE 25006)"), "{said}");
}
