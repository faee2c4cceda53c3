//! `/v1/agent/host` and `/v1/agent/version`: the machine, and the program.
//!
//! - Source: http-api.md §4.5 and §19; the names of what Consul 1.8.7 tells on Linux. What the
//!   kernel does not tell is left out.

use super::*;
use crate::http::json::Json;
use crate::system;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use terraform_core::time::WallClock;

/// Bytes read of a file of the kernel's; that of many processors is long.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Values of `/proc/meminfo` (proc(5)) and their names here.
const MEMORY: [(&str, &str); 17] = [
    ("MemTotal", "total"),
    ("MemAvailable", "available"),
    ("MemFree", "free"),
    ("Active", "active"),
    ("Inactive", "inactive"),
    ("Buffers", "buffers"),
    ("Cached", "cached"),
    ("Writeback", "writeback"),
    ("Dirty", "dirty"),
    ("Shmem", "shared"),
    ("Slab", "slab"),
    ("PageTables", "pagetables"),
    ("SwapCached", "swapcached"),
    ("CommitLimit", "commitlimit"),
    ("Committed_AS", "committedas"),
    ("SwapTotal", "swaptotal"),
    ("SwapFree", "swapfree"),
];

impl Api {
    pub(super) async fn agent_host(&self) -> Handled {
        let folder = match self.settings.facts.data_dir.as_str() {
            "" => PathBuf::from("/"),
            folder => PathBuf::from(folder),
        };
        let wall = self.node.clock().wall();
        let body = smol::unblock(move || describe(&folder, wall)).await;
        Ok(Reply::json(body))
    }

    pub(super) fn agent_version(&self) -> Handled {
        let mut json = Json::default();
        json.object(|json| {
            json.field("SHA", "");
            json.field("BuildDate", "");
            json.field("HumanVersion", self.settings.facts.version);
            json.field("FIPS", "");
        });
        Ok(Reply::json(json.into_bytes()))
    }
}

fn describe(folder: &Path, wall: WallClock) -> Vec<u8> {
    let mut json = Json::with_capacity(8 * 1024);
    json.object(|json| {
        json.key("Memory");
        memory(json, &text("/proc/meminfo"));
        json.key("CPU");
        processors(json, &text("/proc/cpuinfo"));
        json.key("Host");
        host(json, wall);
        json.key("Disk");
        disk(json, folder);
        json.field("CollectionTime", wall.as_millis().saturating_mul(1_000_000));
        json.key("Errors");
        json.null();
    });
    json.into_bytes()
}

/// The text of a file of the kernel's; empty if there is none.
fn text(path: &str) -> String {
    let mut text = String::new();
    let read = |file: fs::File| file.take(FILE_BYTES_MAX).read_to_string(&mut text);
    match fs::File::open(path).and_then(read) {
        Ok(_) => text,
        Err(_) => String::new(),
    }
}

/// A share in percent.
#[expect(clippy::cast_precision_loss, reason = "a share that is shown")]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

fn memory(json: &mut Json, meminfo: &str) {
    let bytes = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kilobytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
        Some(kilobytes * 1024)
    };
    json.object(|json| {
        for (theirs, name) in MEMORY {
            if let Some(bytes) = bytes(theirs) {
                json.field(name, bytes);
            }
        }
        if let (Some(total), Some(available)) = (bytes("MemTotal"), bytes("MemAvailable")) {
            let used = total.saturating_sub(available);
            json.field("used", used);
            json.field("usedPercent", percent(used, total));
        }
    });
}

fn processors(json: &mut Json, cpuinfo: &str) {
    let sections = cpuinfo.split("\n\n").filter(|section| section.contains("processor"));
    json.array(sections, |json, section| {
        let value = |name: &str| {
            let mut pairs = section.lines().filter_map(|line| line.split_once(':'));
            pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
        };
        let number = |name| value(name).and_then(|text| text.parse::<i64>().ok());
        json.object(|json| {
            json.field("cpu", number("processor").unwrap_or_default());
            json.field("vendorId", value("vendor_id").unwrap_or_default());
            json.field("family", value("cpu family").unwrap_or_default());
            json.field("model", value("model").unwrap_or_default());
            json.field("stepping", number("stepping").unwrap_or_default());
            json.field("physicalId", value("physical id").unwrap_or_default());
            json.field("coreId", value("core id").unwrap_or_default());
            json.field("cores", 1_i64);
            json.field("modelName", value("model name").unwrap_or_default());
            let mhz = value("cpu MHz").and_then(|text| text.parse::<f64>().ok());
            json.field("mhz", mhz.unwrap_or_default());
            let flags = value("flags").unwrap_or_default().split_ascii_whitespace();
            json.key("flags");
            json.array(flags, |json, flag| json.string(flag));
            json.field("microcode", value("microcode").unwrap_or_default());
        });
    });
}

fn host(json: &mut Json, wall: WallClock) {
    let uptime = text("/proc/uptime");
    let uptime = uptime.split('.').next().and_then(|text| text.parse::<i64>().ok());
    let uptime = uptime.unwrap_or_default();
    let release = text("/etc/os-release");
    let released = |name: &str| {
        let mut lines = release.lines().filter_map(|line| line.split_once('='));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim_matches('"'))
    };
    let is_process =
        |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let processes = fs::read_dir("/proc")
        .map(|entries| entries.flatten().filter(is_process).count())
        .unwrap_or_default();
    json.object(|json| {
        json.field("hostname", &system::host_name());
        json.field("uptime", uptime);
        json.field("bootTime", wall.as_millis() / 1000 - uptime);
        json.field("procs", processes as u64);
        json.field("os", std::env::consts::OS);
        json.field("platform", released("ID").unwrap_or_default());
        json.field("platformVersion", released("VERSION_ID").unwrap_or_default());
        json.field("kernelVersion", &system::kernel_release());
        json.field("kernelArch", std::env::consts::ARCH);
    });
}

/// The filesystem that holds the agent's data.
fn disk(json: &mut Json, folder: &Path) {
    let Ok(found) = rustix::fs::statvfs(folder) else { return json.null() };
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    let (total, free) = (bytes(found.f_blocks), bytes(found.f_bavail));
    let used = total.saturating_sub(bytes(found.f_bfree));
    let inodes_used = found.f_files.saturating_sub(found.f_ffree);
    json.object(|json| {
        json.field("path", &folder.display().to_string());
        json.field("total", total);
        json.field("free", free);
        json.field("used", used);
        json.field("usedPercent", percent(used, used + free));
        json.field("inodesTotal", found.f_files);
        json.field("inodesUsed", inodes_used);
        json.field("inodesFree", found.f_ffree);
        json.field("inodesUsedPercent", percent(inodes_used, found.f_files));
    });
}
