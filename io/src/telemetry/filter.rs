//! Which metrics are collected, by the beginning of their names.
//!
//! - Source: agent-config.md §7 (`filter_default`, `prefix_filter`): of the rules that fit a name
//!   the longest decides.

use thiserror::Error;

/// Rules for names. They may be replaced while the agent runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    default: bool,
    /// Beginnings of names, and whether what begins so is collected.
    rules: Vec<(String, bool)>,
}

/// Why a rule is none. The operator is at fault; the rule is left out and warned of.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FilterRuleError {
    /// It is empty.
    #[error("Cannot have empty filter rule in prefix_filter")]
    Empty,
    /// It does not say whether to collect.
    #[error("Filter rule must begin with either '+' or '-': \"{0}\"")]
    Sign(String),
}

impl Default for Filter {
    /// Everything is collected.
    fn default() -> Self {
        Self { default: true, rules: Vec::new() }
    }
}

impl Filter {
    /// A filter of rules `+beginning` and `-beginning`, and what was wrong with the others.
    pub fn new(default: bool, rules: &[String]) -> (Self, Vec<FilterRuleError>) {
        let mut filter = Self { default, rules: Vec::new() };
        let mut errors = Vec::new();
        for rule in rules {
            let (beginning, allow) = match (rule.strip_prefix('+'), rule.strip_prefix('-')) {
                (Some(beginning), _) => (beginning, true),
                (None, Some(beginning)) => (beginning, false),
                (None, None) if rule.is_empty() => {
                    errors.push(FilterRuleError::Empty);
                    continue;
                }
                (None, None) => {
                    errors.push(FilterRuleError::Sign(rule.clone()));
                    continue;
                }
            };
            filter.rules.push((beginning.to_owned(), allow));
        }
        (filter, errors)
    }

    /// Whether a metric of this full name is collected. Of two rules for the same beginning the
    /// one that refuses wins.
    pub fn allows(&self, name: &str) -> bool {
        let fitting = self.rules.iter().filter(|(beginning, _)| name.starts_with(beginning));
        let longest = fitting.max_by_key(|(beginning, allow)| (beginning.len(), !allow));
        longest.map_or(self.default, |(_, allow)| *allow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(default: bool, rules: &[&str]) -> (Filter, Vec<FilterRuleError>) {
        let rules: Vec<String> = rules.iter().map(|&rule| rule.to_owned()).collect();
        Filter::new(default, &rules)
    }

    #[test]
    fn the_longest_rule_decides() {
        let (filter, errors) = filter(true, &["-consul.http", "+consul.http.GET"]);
        assert!(errors.is_empty());
        assert!(filter.allows("consul.http.GET.v1.kv._"));
        assert!(!filter.allows("consul.http.PUT.v1.kv._"));
        assert!(filter.allows("consul.raft.apply"));
        let (filter, _) = self::filter(false, &["+consul.raft", "-consul.raft"]);
        assert!(!filter.allows("consul.raft.apply"));
        assert!(!filter.allows("consul.http.GET.v1.kv._"));
    }

    #[test]
    fn a_rule_without_a_sign_is_told_and_left_out() {
        let (filter, errors) = filter(true, &["consul.raft", "", "-consul.raft.apply"]);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "Filter rule must begin with either '+' or '-': \"consul.raft\"",
                "Cannot have empty filter rule in prefix_filter"
            ]
        );
        assert!(filter.allows("consul.raft.commitTime"));
        assert!(!filter.allows("consul.raft.apply"));
    }
}
