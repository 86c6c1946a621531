//! Audit devices: what they may open, and that `Ok` means written.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should say where")]

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;

use leasehold_builtin::audit::Devices;
use leasehold_core::seams::audit::{AuditDevice, AuditDevices, AuditError, AuditLine, Destination, Receipt};
use leasehold_core::seams::error::RequestError;
use tokio::sync::oneshot;

async fn open(devices: &Devices, kind: &str, options: &[(&str, &str)]) -> Result<Arc<dyn AuditDevice>, RequestError> {
    open_beside(devices, kind, options, &[]).await
}

async fn open_beside(
    devices: &Devices,
    kind: &str,
    options: &[(&str, &str)],
    taken: &[Destination],
) -> Result<Arc<dyn AuditDevice>, RequestError> {
    let options: BTreeMap<String, String> = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    devices.open(kind, &options, taken).await
}

async fn write(device: &Arc<dyn AuditDevice>, line: &str) -> Result<(), AuditError> {
    let (done, told) = oneshot::channel();
    device.submit(AuditLine(line.to_owned()), Receipt::new(move |written| drop(done.send(written))));
    told.await.unwrap()
}

async fn refusal(devices: &Devices, kind: &str, options: &[(&str, &str)]) -> String {
    match open(devices, kind, options).await {
        Err(RequestError::Invalid(text)) => text,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("{options:?} was opened"),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn lines_are_appended_whole_and_the_file_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let device = open(&Devices::of_configuration(), "file", &[("file_path", text(&path))]).await.unwrap();
    write(&device, "{\"a\":1}").await.unwrap();
    write(&device, "{\"b\":2}").await.unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\n{\"b\":2}\n");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let other = folder.path().join("shared.log");
    open(&Devices::of_configuration(), "file", &[("file_path", text(&other)), ("mode", "0640")]).await.unwrap();
    assert_eq!(std::fs::metadata(&other).unwrap().permissions().mode() & 0o777, 0o640);
}

#[tokio::test]
async fn many_writers_never_mix_their_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    // Two servers that were told the same path.
    let devices = Devices::of_configuration();
    let (one, two) = (
        open(&devices, "file", &[("file_path", text(&path))]).await.unwrap(),
        open(&devices, "file", &[("file_path", text(&path))]).await.unwrap(),
    );
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let device = Arc::clone(if writer % 2 == 0 { &one } else { &two });
            tokio::spawn(async move {
                let line = writer.to_string().repeat(5_000);
                for _ in 0..20 {
                    write(&device, &line).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert_eq!(written.lines().count(), 160);
    for line in written.lines() {
        assert!(line.len() == 5_000 && line.bytes().all(|byte| Some(byte) == line.bytes().next()));
    }
}

#[tokio::test]
async fn reopening_follows_a_rotation() {
    let folder = tempfile::tempdir().unwrap();
    let (path, rotated) = (folder.path().join("audit.log"), folder.path().join("audit.log.1"));
    let device = open(&Devices::of_configuration(), "file", &[("file_path", text(&path))]).await.unwrap();
    write(&device, "old").await.unwrap();
    std::fs::rename(&path, &rotated).unwrap();
    write(&device, "between").await.unwrap();
    device.reopen().await.unwrap();
    write(&device, "new").await.unwrap();
    assert_eq!(std::fs::read_to_string(&rotated).unwrap(), "old\nbetween\n");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");

    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(device.reopen().await.is_err(), "a device that cannot be opened again says so");
    write(&device, "still the old file").await.unwrap();
}

#[tokio::test]
async fn devices_are_refused_in_vaults_words() {
    let devices = Devices::of_configuration();
    assert_eq!(refusal(&devices, "nosuch", &[]).await, "unknown backend type: \"nosuch\"");
    assert_eq!(refusal(&devices, "file", &[]).await, "file_path is required");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let with = |more| [("file_path", text(&path)), more];
    assert_eq!(refusal(&devices, "file", &with(("prefix", "#!/bin/sh"))).await, "audit log prefixing is not allowed");
    assert!(refusal(&devices, "file", &with(("mode", "rw"))).await.contains("octal"));
    assert!(refusal(&devices, "file", &with(("mode", "4755"))).await.contains("octal"));
    assert!(refusal(&devices, "file", &with(("format", "jsonx"))).await.contains("json"));
    assert!(open(&devices, "file", &[("file_path", "stdout")]).await.is_ok());
}

#[tokio::test]
async fn what_is_no_regular_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (target, link) = (folder.path().join("target"), folder.path().join("link"));
    std::fs::write(&target, "").unwrap();
    symlink(&target, &link).unwrap();
    let devices = Devices::of_configuration();
    for path in ["/dev/null", "/dev/full", text(folder.path()), text(&link)] {
        let said = refusal(&devices, "file", &[("file_path", path)]).await;
        assert!(said.starts_with("sanity check failed; unable to open "), "{said}");
    }
}

#[tokio::test]
async fn a_device_enabled_through_the_api_stays_in_its_directory() {
    let folder = tempfile::tempdir().unwrap();
    let (inside, outside) = (folder.path().join("audit"), folder.path().join("elsewhere"));
    for directory in [&inside, &outside] {
        std::fs::create_dir(directory).unwrap();
    }
    std::fs::create_dir(inside.join("team")).unwrap();
    symlink(&outside, inside.join("way-out")).unwrap();
    std::fs::write(outside.join("victim"), "").unwrap();
    symlink(outside.join("victim"), inside.join("file-out")).unwrap();
    let devices = Devices::of_api(Some(inside.clone()));

    for path in [
        text(&outside.join("x")).to_owned(),
        format!("{}/../elsewhere/x", text(&inside)),
        "../elsewhere/x".to_owned(),
        "way-out/x".to_owned(),
        format!("{}/way-out/x", text(&inside)),
        "file-out".to_owned(),
        "/etc/cron.d/x".to_owned(),
        text(&inside).to_owned(),
    ] {
        let said = refusal(&devices, "file", &[("file_path", &path)]).await;
        assert!(said.contains("must lie beneath") || said.contains("unable to open"), "{path}: {said}");
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1, "nothing was made outside");

    for path in ["audit.log".to_owned(), "team/audit.log".to_owned(), text(&inside.join("absolute.log")).to_owned()] {
        let device = open(&devices, "file", &[("file_path", &path)]).await.unwrap();
        write(&device, "x").await.unwrap();
    }
    assert!(
        refusal(&Devices::of_api(None), "file", &[("file_path", "x")]).await.contains("no directory is configured")
    );
}

#[tokio::test]
async fn a_torn_line_is_closed_by_whoever_opens_the_file_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let devices = Devices::of_configuration();
    for (before, after) in [
        ("", "new\n"),
        ("whole\n", "whole\nnew\n"),
        ("{\"half\":", "{\"half\":\nnew\n"),
        ("whole\n{\"half\":", "whole\n{\"half\":\nnew\n"),
    ] {
        std::fs::write(&path, before).unwrap();
        let device = open(&devices, "file", &[("file_path", text(&path))]).await.unwrap();
        write(&device, "new").await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), after, "opened at the start");
        // After a rotation.
        std::fs::write(&path, before).unwrap();
        device.reopen().await.unwrap();
        write(&device, "new").await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), after, "opened again");
    }
    // What may not be read may be torn: an empty line does less harm than two records in one.
    std::fs::write(&path, "half").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o200)).unwrap();
    let device = open(&devices, "file", &[("file_path", text(&path)), ("mode", "0000")]).await.unwrap();
    write(&device, "new").await.unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "half\nnew\n");
}

#[tokio::test]
async fn no_second_device_writes_to_a_file_and_nothing_of_it_is_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let (devices, api) = (Devices::of_configuration(), Devices::of_api(Some(folder.path().to_owned())));
    let first = open(&devices, "file", &[("file_path", text(&path))]).await.unwrap();
    let taken: Vec<Destination> = first.destination().into_iter().collect();
    std::fs::hard_link(&path, folder.path().join("other-name")).unwrap();
    symlink(folder.path(), folder.path().join("way-round")).unwrap();
    for name in ["audit.log", "other-name", "way-round/audit.log"] {
        for devices in [&api, &devices] {
            let file = folder.path().join(name);
            let options = [("file_path", text(&file)), ("mode", "0640")];
            let said = open_beside(devices, "file", &options, &taken).await.err().unwrap().to_string();
            assert!(said.contains("another audit device writes to"), "{said}");
        }
    }
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(open_beside(&api, "file", &[("file_path", "third.log")], &taken).await.is_ok());

    let stdout =
        open(&api, "file", &[("file_path", "stdout")]).await.unwrap().destination().into_iter().collect::<Vec<_>>();
    assert!(open_beside(&api, "file", &[("file_path", "STDOUT")], &stdout).await.is_err());
}

#[tokio::test]
async fn the_api_lets_nobody_else_at_an_audit_file() {
    let folder = tempfile::tempdir().unwrap();
    let (devices, api) = (Devices::of_configuration(), Devices::of_api(Some(folder.path().to_owned())));
    for mode in ["0777", "0604", "0602", "0o601"] {
        let said = refusal(&api, "file", &[("file_path", "x.log"), ("mode", mode)]).await;
        assert!(said.starts_with("mode must not let others"), "{mode}: {said}");
        assert!(!folder.path().join("x.log").exists());
    }
    for mode in ["0600", "0640", "0660", "0000", ""] {
        open(&api, "file", &[("file_path", "x.log"), ("mode", mode)]).await.unwrap();
    }
    // The operator's own file says what the operator wants.
    let path = folder.path().join("y.log");
    open(&devices, "file", &[("file_path", text(&path)), ("mode", "0644")]).await.unwrap();
}
