//! The rules of sizes, paces and times that few need to change (agent-config.md §3, §5).

use super::super::TuningSettings;
use super::{Checked, refuse};
use terraform_core::local::definition::OutputRules;

/// Bytes of output kept of a check at most, whatever is set: outputs travel through consensus.
const CHECK_OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// What is kept of what checks say.
pub(super) fn check_output(tuning: &TuningSettings) -> Checked<OutputRules> {
    let default = OutputRules::default();
    let key = "check_output_max_size";
    let bytes_max = match tuning.numbers.get(key) {
        None => default.bytes_max,
        Some(given) => match usize::try_from(*given) {
            Ok(0) | Err(_) => {
                return refuse(format!(
                    "{key} must be positive, to discard check output use discard_check_output"
                ));
            }
            Ok(bytes) if bytes > CHECK_OUTPUT_BYTES_MAX => {
                return refuse(format!(
                    "{key} cannot be {given}. Must be at most {CHECK_OUTPUT_BYTES_MAX}"
                ));
            }
            Ok(bytes) => bytes,
        },
    };
    let discard = tuning.switches.get("discard_check_output").copied().unwrap_or(default.discard);
    Ok(OutputRules { bytes_max, discard })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn what_is_kept_of_checks_is_limited() {
        let of = |text: &str| {
            check_output(&parse(text).unwrap().tuning).map_err(|error| error.to_string())
        };
        assert_eq!(of("{}"), Ok(OutputRules { bytes_max: 4096, discard: false }));
        let given = r#"{"check_output_max_size": 8192, "discard_check_output": true}"#;
        assert_eq!(of(given), Ok(OutputRules { bytes_max: 8192, discard: true }));
        for (number, rule) in [
            ("0", "must be positive, to discard check output use discard_check_output"),
            ("-1", "must be positive, to discard check output use discard_check_output"),
            ("65537", "cannot be 65537. Must be at most 65536"),
        ] {
            let error = of(&format!("{{\"check_output_max_size\": {number}}}")).unwrap_err();
            assert_eq!(error, format!("check_output_max_size {rule}"));
        }
    }
}
