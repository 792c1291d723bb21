//! What this machine has to run a guest with, and QEMU's command line.

use super::nics;
use super::{Memory, VmOptions};
use crate::lab::process::output;
use crate::lab::skipped;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `scripts/vm-lab.sh` says if this machine can't have what it makes.
const MISSING: i32 = 3;

/// The socket of QEMU's monitor, in the folder that a guest shares.
pub(super) const MONITOR: &str = "monitor";

/// Kernel arguments. All but the console and the IOMMU save time in software emulation.
const KERNEL: &str = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=reliable no_timer_check \
     random.trust_cpu=on audit=0 selinux=0 apparmor=0 nowatchdog \
     intel_iommu=on iommu=pt";

/// What a guest is made of, below the build folder.
#[derive(Debug)]
pub struct Machine {
    folder: PathBuf,
}

impl Machine {
    /// What is there, or is made now. `None` if this machine can't have it, which is said aloud.
    ///
    /// # Errors
    /// Not root, or the script fails.
    pub fn here(test: &str) -> Result<Option<Self>> {
        if skipped(test) {
            return Ok(None);
        }
        crate::lab::require_root()?;
        let missing = match no_tap() {
            Some(missing) => missing,
            None => match Self::make()? {
                Ok(machine) => return Ok(Some(machine)),
                Err(missing) => missing,
            },
        };
        eprintln!("SKIPPED {test}: no virtual machine: {missing}; nothing was proved");
        Ok(None)
    }

    fn make() -> Result<std::result::Result<Self, String>> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/vm-lab.sh");
        let mut command = Command::new(&script);
        // The build folder is marked by a file of cargo's.
        let exe = std::env::current_exe().context("the running program's own path")?;
        let is_build = |dir: &&Path| dir.join("CACHEDIR.TAG").exists();
        if let Some(target) = exe.ancestors().skip(1).find(is_build) {
            command.env("CARGO_TARGET_DIR", target);
        }
        let out = command
            .output()
            .with_context(|| format!("{}: cannot be run", script.display()))?;
        let said = String::from_utf8_lossy(&out.stderr);
        if out.status.success() {
            let folder = String::from_utf8_lossy(&out.stdout).trim().into();
            return Ok(Ok(Self { folder }));
        }
        if out.status.code() == Some(MISSING) {
            return Ok(Err(said.lines().last().unwrap_or("").to_owned()));
        }
        bail!("{}: {}:\n{said}", script.display(), out.status)
    }

    pub(super) fn qemu(&self) -> PathBuf {
        self.folder.join("qemu")
    }

    /// QEMU's arguments for a guest that shares a folder.
    pub(super) fn arguments(&self, command: &mut Command, share: &Path, options: &VmOptions) {
        let file = |name: &str| self.folder.join(name);
        let kernel = format!(
            "{KERNEL} {} lab.share={}",
            options.memory.kernel(),
            share.display()
        );
        // One thread for all CPUs: with one for each the guest has hung.
        command.args(["-accel", "tcg,thread=single", "-cpu", "max", "-smp", "3"]);
        command.args(["-machine", "q35,kernel-irqchip=split"]);
        command.args(["-device", "intel-iommu,intremap=on"]);
        command.args(["-m", options.memory.size()]);
        if options.memory == Memory::TwoNodes {
            command.args(nics::nodes());
        }
        command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
        command.arg("-monitor").arg(format!(
            "unix:{},server=on,wait=off",
            share.join(MONITOR).display()
        ));
        command.args(["-no-reboot", "-serial"]);
        command.arg(format!("file:{}", share.join("console.log").display()));
        command.arg("-kernel").arg(file("vmlinuz"));
        command.arg("-initrd").arg(file("initrd"));
        command.arg("-append").arg(kernel);
        for (tag, path, rights) in [
            ("root", Path::new("/"), ",readonly=on"),
            ("share", share, ""),
        ] {
            command.arg("-fsdev").arg(format!(
                "local,id={tag},path={},security_model=none,multidevs=remap{rights}",
                path.display()
            ));
            let device = format!("virtio-9p-pci,bus=pcie.0,fsdev={tag},mount_tag={tag}");
            command.arg("-device").arg(device);
        }
        for (index, nic) in options.nics.iter().enumerate() {
            command.args(nics::arguments(nic, index, options.memory));
        }
    }
}

/// Why there can be no tap devices here, if so: tried in a namespace that goes at once.
fn no_tap() -> Option<String> {
    let mut command = Command::new("unshare");
    command.args(["-n", "ip", "tuntap", "add", "dev", "vm0", "mode", "tap"]);
    let refused = output(&mut command).err()?;
    Some(format!("no tap device can be made: {refused:#}"))
}
