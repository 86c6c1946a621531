//! From the configuration of listeners to open sockets, and their certificates that are read again at SIGHUP.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use leasehold_http::listener::{LetsIn, Listener as Served, Rules, Socket, SocketFile};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use crate::config::{Address, Config, Listener, TlsSettings};
use crate::tls;

/// A listener's TLS, which is read again at SIGHUP.
pub(crate) struct Certificate {
    /// Of the listener, as the configuration names it.
    address: Address,
    settings: TlsSettings,
    sender: watch::Sender<Arc<rustls::ServerConfig>>,
}

impl Certificate {
    /// From the files that the configuration names now. What is wrong with them is logged, and what was read before stays.
    pub(crate) fn read_again(&mut self, wished: Option<&Config>) {
        let listener = wished.and_then(|config| config.listeners.iter().find(|one| one.address == self.address));
        let settings = listener.and_then(|listener| listener.tls.clone()).unwrap_or_else(|| self.settings.clone());
        match tls::load(&settings) {
            Ok(config) => {
                self.sender.send_replace(config);
                tracing::info!("read {} again", settings.cert.display());
                self.settings = settings;
            }
            Err(why) => tracing::error!("could not reload a certificate: {why}"),
        }
    }

    /// The TLS of one listener, if it has any.
    pub(crate) fn of(listener: &Listener) -> Result<Option<Self>, String> {
        let Some(settings) = &listener.tls else { return Ok(None) };
        let sender = watch::Sender::new(tls::load(settings)?);
        Ok(Some(Self { address: listener.address.clone(), settings: settings.clone(), sender }))
    }
}

/// Opens a listener's socket.
///
/// # Errors
/// In words for the operator.
pub(crate) async fn bind(listener: &Listener, lets_in: LetsIn, tls: Option<&Certificate>) -> Result<Served, String> {
    let socket = match &listener.address {
        Address::Tcp(address) => Socket::Tcp(tcp(address).await?),
        Address::Unix { path, mode, user, group } => {
            let (listener, file) = unix(path).await?;
            owned(path, *mode, user.as_deref(), group.as_deref())?;
            Socket::Unix(listener, file)
        }
    };
    let rules = Rules {
        proxy_protocol: listener.proxy_protocol.clone(),
        forwarded_for: listener.forwarded_for.clone(),
        response_headers: listener.response_headers.clone(),
        unauthenticated_metrics: listener.unauthenticated_metrics,
        disallows_metrics: listener.disallows_metrics,
        lets_in: lets_in.or(listener.lets_in),
    };
    Ok(Served { socket, tls: tls.map(|certificate| certificate.sender.subscribe()), rules: Arc::new(rules) })
}

async fn tcp(address: &str) -> Result<TcpListener, String> {
    // A port alone means every address of this machine, as in Vault.
    let every = address.starts_with(':').then(|| format!("0.0.0.0{address}"));
    TcpListener::bind(every.as_deref().unwrap_or(address)).await.map_err(|error| failed(address, &error))
}

fn failed(address: &str, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("could not listen on {address}: another program does; stop it or choose another address")
        }
        _ => format!("could not listen on {address}: {error}"),
    }
}

/// A socket that a killed server left behind is replaced; anything else in its place is not.
async fn unix(path: &Path) -> Result<(UnixListener, SocketFile), String> {
    let shown = path.display().to_string();
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket {
        match tokio::net::UnixStream::connect(path).await {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(|error| failed(&shown, &error))?;
            }
            _ => return Err(failed(&shown, &std::io::ErrorKind::AddrInUse.into())),
        }
    }
    let listener = UnixListener::bind(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => format!("could not listen on {shown}: there is a file that is no socket"),
        _ => failed(&shown, &error),
    })?;
    let file = SocketFile::at(path.to_owned()).map_err(|error| failed(&shown, &error))?;
    Ok((listener, file))
}

/// Gives the socket's file its owner, then its permissions.
fn owned(path: &Path, mode: Option<u32>, user: Option<&str>, group: Option<&str>) -> Result<(), String> {
    let number = |name: Option<&str>, file: &str, what: &str| match name {
        None => Ok(None),
        Some(name) => number_of(name, file)
            .map(Some)
            .ok_or_else(|| format!("{}: there is no {what} {name:?} in {file}; use its number", path.display())),
    };
    let user = number(user, "/etc/passwd", "user")?;
    let group = number(group, "/etc/group", "group")?;
    if user.is_some() || group.is_some() {
        std::os::unix::fs::chown(path, user, group)
            .map_err(|error| format!("could not give {} its owner: {error}", path.display()))?;
    }
    match mode {
        Some(mode) => fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(|error| format!("could not give {} its permissions: {error}", path.display())),
        None => Ok(()),
    }
}

/// A number stands for itself; a name is looked up in a file of `name:x:number:…`.
fn number_of(name: &str, file: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    fs::read_to_string(file).ok()?.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_alone_means_every_address() {
        let bound = tcp(":0").await.unwrap().local_addr().unwrap();
        assert!(bound.ip().is_unspecified(), "{bound}");
    }

    #[tokio::test]
    async fn a_left_over_socket_is_replaced_and_nothing_else_is() {
        let folder = std::env::temp_dir().join(format!("leasehold-bind-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("x.sock");
        // As after SIGKILL: the file stays.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (first, file) = unix(&path).await.unwrap();
        let said = unix(&path).await.unwrap_err();
        assert!(said.contains("another program does"), "{said}");
        owned(&path, Some(0o620), None, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o620);
        drop((first, file));
        assert!(!path.exists(), "a server that ends takes its socket away");
        fs::write(&path, "precious").unwrap();
        let said = unix(&path).await.unwrap_err();
        assert!(said.contains("no socket"), "{said}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn owners_are_names_or_numbers() {
        assert_eq!(number_of("1234", "/etc/passwd"), Some(1234));
        assert_eq!(number_of("root", "/etc/passwd"), Some(0));
        assert_eq!(number_of("nobody-of-that-name", "/etc/passwd"), None);
    }
}
