//! `scripts/setup.sh` on a machine made of stand-ins: a folder of small programs is all of its path
//! beyond the basic tools.
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests, too")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A machine with these packages, run by root, with cargo and DPDK. apt-get notes what it is asked
/// and whether services may start.
fn machine(installed: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("installed"),
        format!("{}\n", installed.join("\n")),
    )
    .unwrap();
    let here = folder.path().display();
    program(&folder, "id", "echo 0");
    program(&folder, "cargo", "echo 'cargo 1.90.0 (abc 2025-01-01)'");
    program(&folder, "pkg-config", "echo 22.11.3");
    let query =
        format!("for p; do :; done; grep -qx -- \"$p\" '{here}/installed' && printf installed");
    program(&folder, "dpkg-query", &query);
    let apt = format!(
        "echo \"$*\" >>'{here}/asked'\n\
         [ \"$1\" = install ] || exit 0\n\
         '{here}/policy' nginx start; echo \"policy $?\" >>'{here}/asked'\n\
         [ ! -e '{here}/broken' ] || exit 100\n\
         for p; do echo \"$p\" >>'{here}/installed'; done"
    );
    program(&folder, "apt-get", &apt);
    folder
}

fn program(folder: &TempDir, name: &str, body: &str) {
    let path = folder.path().join(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn run(folder: &TempDir, arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/setup.sh");
    Command::new("/bin/bash")
        .arg(script)
        .args(arguments)
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()))
        .env("HOME", folder.path())
        .env("SETUP_POLICY_RC", folder.path().join("policy"))
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn asked(folder: &TempDir) -> String {
    fs::read_to_string(folder.path().join("asked")).unwrap_or_default()
}

#[test]
fn missing_packages_are_installed_once_and_no_service_starts() {
    let folder = machine(&["clang"]);
    let first = run(&folder, &["--lab"]);
    assert!(first.status.success(), "{first:?}");
    let said = asked(&folder);
    let line = said.lines().find(|l| l.starts_with("install")).unwrap();
    let packages: Vec<&str> = line.split(' ').collect();
    assert!(
        packages.contains(&"libdpdk-dev") && packages.contains(&"wrk"),
        "{said}"
    );
    assert!(
        !packages.contains(&"clang"),
        "what is there is not asked for: {said}"
    );
    assert!(
        said.contains("policy 101"),
        "services must be denied: {said}"
    );
    assert!(
        !folder.path().join("policy").exists(),
        "the policy must go again"
    );

    let again = run(&folder, &["--lab"]);
    assert!(again.status.success(), "{again:?}");
    assert_eq!(asked(&folder), said, "apt is not run when all is there");
}

#[test]
fn the_lab_comes_only_when_asked_for() {
    let folder = machine(&[]);
    assert!(run(&folder, &[]).status.success());
    assert!(
        asked(&folder).contains("libclang-dev") && !asked(&folder).contains("nginx"),
        "{}",
        asked(&folder)
    );
}

#[test]
fn a_policy_that_was_there_comes_back_even_when_apt_fails() {
    for broken in [false, true] {
        let folder = machine(&[]);
        program(&folder, "policy", "exit 7 # mine");
        if broken {
            fs::write(folder.path().join("broken"), "").unwrap();
        }
        let output = run(&folder, &[]);
        assert_eq!(output.status.code(), Some(i32::from(broken)), "{output:?}");
        assert!(asked(&folder).contains("policy 101"), "{}", asked(&folder));
        let policy = folder.path().join("policy");
        assert!(
            fs::read_to_string(&policy)
                .unwrap()
                .contains("exit 7 # mine")
        );
        assert_eq!(
            fs::metadata(&policy).unwrap().permissions().mode() & 0o777,
            0o755
        );
        let left = fs::read_dir(folder.path()).unwrap().filter(|e| {
            e.as_ref()
                .is_ok_and(|e| e.file_name().to_string_lossy().contains("before-setup"))
        });
        assert_eq!(left.count(), 0);
    }
}

#[test]
fn check_installs_nothing_and_names_what_is_missing() {
    let folder = machine(&["clang"]);
    let output = run(&folder, &["--check"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("libdpdk-dev") && !said.contains(" clang "),
        "{said}"
    );
    assert_eq!(asked(&folder), "");
}

#[test]
fn who_is_not_root_is_told_so() {
    let folder = machine(&[]);
    program(&folder, "id", "echo 1000");
    let output = run(&folder, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("run as root"), "{output:?}");
    assert_eq!(asked(&folder), "");
}

#[test]
fn old_or_missing_tools_are_named_with_the_way_out() {
    let folder = machine(&[]);
    program(&folder, "cargo", "echo 'cargo 1.87.0 (abc 2025-01-01)'");
    program(&folder, "pkg-config", "echo 21.11.9");
    let output = run(&folder, &[]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("is 1.87.0, and 1.88 or newer") && said.contains("rustup update"),
        "{said}"
    );
    assert!(
        said.contains("DPDK is 21.11.9, and 22.11 or newer"),
        "{said}"
    );

    fs::remove_file(folder.path().join("cargo")).unwrap();
    // A cargo of the machine itself would be found on the path, and is no part of this test.
    if !Path::new("/usr/bin/cargo").exists() {
        let said = text(&run(&folder, &["--check"]).stderr);
        assert!(
            said.contains("without --check installs it") && said.contains("https://rustup.rs"),
            "{said}"
        );
        fs::create_dir_all(folder.path().join(".cargo/bin")).unwrap();
        program(
            &folder,
            ".cargo/bin/cargo",
            "echo 'cargo 1.100.0-nightly (abc 2027-01-01)'",
        );
        let output = run(&folder, &[]);
        assert!(
            text(&output.stdout).contains("Rust 1.100.0-nightly"),
            "{output:?}"
        );
    }
}

/// Has Rust's installer and its checksum fetched from the folder. The installer notes what it is
/// asked and installs a cargo.
fn rust_to_be_had(folder: &TempDir, sum: &str) {
    let here = folder.path().display();
    fs::remove_file(folder.path().join("cargo")).unwrap();
    let installer = format!(
        "echo \"$*\" >'{here}/rust-asked'; mkdir -p \"$HOME/.cargo/bin\"\n\
         printf '#!/bin/sh\\necho cargo 1.95.0 x\\n' >\"$HOME/.cargo/bin/cargo\"; chmod 755 \"$HOME/.cargo/bin/cargo\""
    );
    program(folder, "installer", &installer);
    let curl = format!(
        "for a; do [ \"$last\" != -o ] || out=$a; last=$a; done\n\
         case $last in *.sha256) {sum} >\"$out\" ;; *) cp '{here}/installer' \"$out\" ;; esac"
    );
    program(folder, "curl", &curl);
}

#[test]
fn rust_is_installed_where_there_is_none() {
    if Path::new("/usr/bin/cargo").exists() {
        return;
    }
    let folder = machine(&[]);
    let sum = format!("sha256sum <'{}/installer'", folder.path().display());
    rust_to_be_had(&folder, &sum);
    let output = run(&folder, &[]);
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stdout).contains("Rust 1.95.0"), "{output:?}");
    let asked = fs::read_to_string(folder.path().join("rust-asked")).unwrap();
    assert!(
        asked.contains("--no-modify-path") && asked.contains("-c clippy"),
        "{asked}"
    );
    // It is there now.
    fs::remove_file(folder.path().join("rust-asked")).unwrap();
    assert!(run(&folder, &[]).status.success());
    assert!(!folder.path().join("rust-asked").exists());
}

#[test]
fn an_installer_that_is_not_what_it_should_be_is_not_run() {
    if Path::new("/usr/bin/cargo").exists() {
        return;
    }
    for (sum, word) in [
        ("echo 0123", "checksum"),
        ("exit 22", "could not be fetched"),
    ] {
        let folder = machine(&[]);
        rust_to_be_had(&folder, sum);
        let output = run(&folder, &[]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(word), "{said}");
        assert!(!folder.path().join("rust-asked").exists());
    }
}

#[test]
fn unknown_options_are_named() {
    let output = run(&machine(&[]), &["--labs"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--labs"));
}
