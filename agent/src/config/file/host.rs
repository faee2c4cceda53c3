//! The keys of `config::host`.

use super::FileReader;
use serde_json::Value;

impl FileReader {
    /// A key of what an agent does on its machine; `false` if it is none of them.
    pub(super) fn host(&mut self, key: &str, value: &Value) -> bool {
        match key {
            "log_file" => self.host_text("log_file", value),
            "log_json" => self.host_switch("log_json", value),
            "log_rotate_bytes" => self.host_number("log_rotate_bytes", value),
            "log_rotate_max_files" => self.host_number("log_rotate_max_files", value),
            "log_rotate_duration" => {
                self.settings.host.log_rotate_duration = self.duration(key, value);
            }
            "pid_file" => self.host_text("pid_file", value),
            "enable_syslog" => self.host_switch("enable_syslog", value),
            "syslog_facility" => self.host_text("syslog_facility", value),
            "unix_sockets.user" => self.host_text("unix_sockets.user", value),
            "unix_sockets.group" => self.host_text("unix_sockets.group", value),
            "unix_sockets.mode" => self.host_text("unix_sockets.mode", value),
            _ => return false,
        }
        true
    }

    fn host_text(&mut self, key: &'static str, value: &Value) {
        let text = self.text(key, value).map(|text| (key, text));
        self.settings.host.texts.extend(text);
    }

    fn host_switch(&mut self, key: &'static str, value: &Value) {
        let switch = self.boolean(key, value).map(|switch| (key, switch));
        self.settings.host.switches.extend(switch);
    }

    fn host_number(&mut self, key: &'static str, value: &Value) {
        let number = self.integer(key, value).map(|number| (key, number));
        self.settings.host.numbers.extend(number);
    }
}
