//! Finds the system's libdpdk, compiles the shim and generates the bindings. Whatever is missing is
//! said in one sentence that names the command that mends it.

use std::path::PathBuf;
use std::process::Command;

/// Long-term releases whose headers this crate is written for.
const ACCEPTED: [&str; 4] = ["22.11", "23.11", "24.11", "25.11"];
const INSTALL: &str =
    "apt-get install -y --no-install-recommends dpdk libdpdk-dev libclang-dev pkg-config";
/// What the shim and the `dpdk` crate call. Drivers are loaded at run time and are not linked.
const LIBRARIES: [&str; 9] = [
    "rte_ethdev",
    "rte_mbuf",
    "rte_mempool",
    "rte_ring",
    "rte_bus_vdev",
    "rte_net_ring",
    "rte_ip_frag",
    "rte_kvargs",
    "rte_eal",
];
/// Logging is a library of its own from this release on; before it is in rte_eal.
const OWN_LOG_LIBRARY: &str = "23.11";

const FUNCTIONS: &[&str] = &[
    "shim_.*",
    "rte_eal_init",
    "rte_eal_cleanup",
    "rte_eal_has_hugepages",
    "rte_eal_get_runtime_dir",
    "rte_eal_remote_launch",
    "rte_eal_wait_lcore",
    "rte_lcore_count",
    "rte_eal_get_lcore_state",
    "rte_strerror",
    "rte_version",
    "rte_get_tsc_hz",
    "rte_pktmbuf_pool_create",
    "rte_mempool_free",
    "rte_mempool_lookup",
    "rte_mempool_avail_count",
    "rte_mbuf_dynfield_register",
    "rte_mbuf_dynflag_register",
    "rte_mbuf_dynfield_lookup",
    "rte_mbuf_dynflag_lookup",
    "rte_vdev_init",
    "rte_vdev_uninit",
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_get_name_by_port",
    "rte_eth_find_next",
    "rte_eth_dev_info_get",
    "rte_eth_dev_configure",
    "rte_eth_dev_adjust_nb_rx_tx_desc",
    "rte_eth_rx_queue_setup",
    "rte_eth_tx_queue_setup",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_dev_close",
    "rte_eth_dev_socket_id",
    "rte_eth_macaddr_get",
    "rte_eth_promiscuous_enable",
    "rte_eth_promiscuous_disable",
    "rte_eth_promiscuous_get",
    "rte_eth_link_get_nowait",
    "rte_eth_allmulticast_enable",
    "rte_eth_allmulticast_get",
    "rte_eth_dev_rss_reta_update",
    "rte_eth_xstats_get_id_by_name",
    "rte_eth_xstats_get_by_id",
    "rte_eth_stats_get",
    "rte_eth_dev_get_mtu",
    "rte_ip_frag_table_create",
    "rte_ip_frag_table_destroy",
    "rte_ip_frag_table_del_expired_entries",
    "rte_ip_frag_free_death_row",
];
const TYPES: &[&str] = &[
    "rte_mbuf",
    "rte_mbuf_dynfield",
    "rte_mbuf_dynflag",
    "rte_mempool",
    "rte_eth_dev_info",
    "rte_eth_conf",
    "rte_eth_stats",
    "rte_eth_link",
    "rte_eth_rss_reta_entry64",
    "rte_ether_addr",
    "rte_lcore_state_t",
    "rte_ip_frag_tbl",
    "rte_ip_frag_death_row",
    "shim_mbuf_offset",
    "shim_mbuf_l3_len",
    "shim_interface_flag",
    "shim_ring",
    "shim_ring_field",
    "shim_ring_bits",
];
const VARIABLES: &[&str] = &[
    "SHIM_.*",
    "RTE_PKTMBUF_HEADROOM",
    "RTE_MAX_ETHPORTS",
    "RTE_MAX_LCORE",
    "RTE_MEMPOOL_CACHE_MAX_SIZE",
    "LCORE_ID_ANY",
    "RTE_LIBRTE_IP_FRAG_MAX_FRAG",
    "RTE_ETH_RETA_GROUP_SIZE",
];

fn main() {
    println!("cargo::rerun-if-changed=shim.c");
    println!("cargo::rerun-if-changed=shim.h");
    println!("cargo::rerun-if-env-changed=PKG_CONFIG_PATH");
    println!("cargo::rerun-if-env-changed=LIBCLANG_PATH");
    if let Err(sentence) = build() {
        println!("cargo::error={sentence}");
        std::process::exit(1);
    }
}

fn build() -> Result<(), String> {
    let version = pkg_config(&["--modversion"])?;
    if !ACCEPTED.iter().any(|a| {
        version
            .strip_prefix(a)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }) {
        return Err(format!(
            "libdpdk {version} was found, but only the long-term releases {} are supported: install one of them ({INSTALL}) or point \
             PKG_CONFIG_PATH at it",
            ACCEPTED.join(", ")
        ));
    }
    println!("cargo::rustc-env=DPDK_VERSION={version}");

    // Raw, because `-include rte_config.h` and `-march` matter as much as the include directories
    // do.
    let cflags: Vec<String> = pkg_config(&["--cflags"])?
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let libdir = pkg_config(&["--variable=libdir"])?;

    let mut shim = cc::Build::new();
    shim.file("shim.c").opt_level(2).warnings(true);
    for flag in &cflags {
        shim.flag(flag);
    }
    shim.try_compile("dpdk_shim").map_err(|e| {
        format!("the shim over libdpdk {version} does not compile ({e}): see that a C compiler and the headers are installed ({INSTALL} gcc)")
    })?;

    println!("cargo::rustc-link-search=native={libdir}");
    for library in LIBRARIES {
        println!("cargo::rustc-link-lib=dylib={library}");
    }
    // Releases are named by year and month.
    if version.as_str() >= OWN_LOG_LIBRARY {
        println!("cargo::rustc-link-lib=dylib=rte_log");
    }
    bindings(&cflags, &version)
}

fn bindings(cflags: &[String], version: &str) -> Result<(), String> {
    let out = std::env::var_os("OUT_DIR")
        .map(PathBuf::from)
        .ok_or("OUT_DIR is not set: run this through cargo")?;
    let mut builder = bindgen::Builder::default()
        .header("shim.h")
        .clang_args(cflags)
        .opaque_type("rte_mbuf")
        .opaque_type("rte_mempool")
        // Packed and aligned at once, or too large to derive for; nothing here needs their fields.
        .opaque_type("rte_arp_hdr")
        .opaque_type("rte_arp_ipv4")
        .opaque_type("rte_l2tpv2_combined_msg_hdr")
        .opaque_type("rte_gtp_psc_generic_hdr")
        .blocklist_item("per_lcore_.*")
        .prepend_enum_name(false)
        .derive_debug(false)
        .generate_comments(false)
        .layout_tests(true);
    for f in FUNCTIONS {
        builder = builder.allowlist_function(f);
    }
    for t in TYPES {
        builder = builder.allowlist_type(t);
    }
    for v in VARIABLES {
        builder = builder.allowlist_var(v);
    }
    // bindgen panics when it cannot load libclang. The panic's own text is long and is kept off the
    // screen.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let generated =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || builder.generate()));
    std::panic::set_hook(hook);
    match generated {
        Err(_) => Err(format!(
            "libclang, which generates the bindings to libdpdk, cannot be loaded: install it with `{INSTALL}` or set LIBCLANG_PATH"
        )),
        Ok(Err(e)) => Err(format!(
            "the headers of libdpdk {version} cannot be read ({}): reinstall them with `{INSTALL}`",
            e.to_string().lines().next().unwrap_or("no reason given")
        )),
        Ok(Ok(b)) => b
            .write_to_file(out.join("bindings.rs"))
            .map_err(|e| format!("the bindings cannot be written to {}: {e}", out.display())),
    }
}

/// What pkg-config says of libdpdk.
fn pkg_config(arguments: &[&str]) -> Result<String, String> {
    let program = std::env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".to_owned());
    println!("cargo::rerun-if-env-changed=PKG_CONFIG");
    let output = Command::new(&program)
        .args(arguments)
        .arg("libdpdk")
        .output()
        .map_err(|e| {
            format!(
                "{program}, which locates libdpdk, cannot be run ({e}): install it with `{INSTALL}`"
            )
        })?;
    if !output.status.success() {
        return Err(format!(
            "libdpdk was not found by {program}: install it with `{INSTALL}`"
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
