//! Audit devices: what they may open, and that `Ok` means written.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should say where")]

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;

use leasehold_builtin::audit::Devices;
use leasehold_core::request::RequestError;
use leasehold_core::seams::audit::{AuditDevice, AuditDevices, AuditLine};

async fn open(devices: &Devices, kind: &str, options: &[(&str, &str)]) -> Result<Arc<dyn AuditDevice>, RequestError> {
    let options: BTreeMap<String, String> = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    devices.open(kind, &options).await
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
    device.write(&AuditLine("{\"a\":1}")).await.unwrap();
    device.write(&AuditLine("{\"b\":2}")).await.unwrap();
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
    // Two devices on one file, as two servers that were told the same path.
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
                    device.write(&AuditLine(&line)).await.unwrap();
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
    device.write(&AuditLine("old")).await.unwrap();
    std::fs::rename(&path, &rotated).unwrap();
    device.write(&AuditLine("between")).await.unwrap();
    device.reopen().await.unwrap();
    device.write(&AuditLine("new")).await.unwrap();
    assert_eq!(std::fs::read_to_string(&rotated).unwrap(), "old\nbetween\n");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");

    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(device.reopen().await.is_err(), "a device that cannot be opened again says so");
    device.write(&AuditLine("still the old file")).await.unwrap();
}

#[tokio::test]
async fn devices_are_refused_in_the_fields_words() {
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
        device.write(&AuditLine("x")).await.unwrap();
    }
    assert!(
        refusal(&Devices::of_api(None), "file", &[("file_path", "x")]).await.contains("no directory is configured")
    );
}
