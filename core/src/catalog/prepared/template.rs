//! From a template and a name to the query that the name asks for (http-api.md §14).
//!
//! Every text of what the query wants may hold `${name.full}`, `${name.prefix}`, `${name.suffix}`,
//! `${match(N)}` and `${agent.segment}`; `$${` stands for `${`. Calculations are not offered.

use super::{PreparedQuery, PreparedQueryRule, Selection};
use crate::expression;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What stands for what in one template and name.
struct Values<'a> {
    full: &'a str,
    prefix: &'a str,
    suffix: &'a str,
    /// The groups of the regular expression in the name, the whole match first.
    groups: Vec<&'a str>,
}

impl PreparedQuery {
    /// The query that `name` asks for: this one, or what this template makes of it.
    ///
    /// - Errors: a text of the template or its expression breaks a rule; none in one that was
    ///   checked, unless an earlier release did.
    /// - Cost: that of compiling the expression, if there is one.
    pub(super) fn rendered(&self, name: &str) -> Result<Cow<'_, Self>, PreparedQueryRule> {
        let Some(template) = &self.template else { return Ok(Cow::Borrowed(self)) };
        let mut groups = Vec::new();
        if !template.regexp.is_empty() {
            let expression = expression::compile(&template.regexp)?;
            let found = expression.captures(name);
            let found = found.iter().flat_map(|found| found.iter());
            groups = found.map(|group| group.map_or("", |group| group.as_str())).collect();
        }
        // The prefix fits in any case, and a letter's other case may have another length.
        let behind = name.char_indices().nth(self.name.chars().count());
        let suffix = behind.and_then(|(at, _)| name.get(at..)).unwrap_or_default();
        let values = Values { full: name, prefix: &self.name, suffix, groups };
        let mut service = self.service.rendered(&values)?;
        if template.remove_empty_tags {
            service.tags.retain(|tag| !tag.is_empty());
        }
        Ok(Cow::Owned(Self { service, ..self.clone() }))
    }
}

impl Selection {
    fn rendered(&self, values: &Values<'_>) -> Result<Self, PreparedQueryRule> {
        let one = |text: &String| values.rendered(text);
        let list = |texts: &[String]| texts.iter().map(one).collect::<Result<Vec<_>, _>>();
        let map = |texts: &BTreeMap<String, String>| {
            let pairs = texts.iter().map(|(key, text)| Ok((key.clone(), one(text)?)));
            pairs.collect::<Result<BTreeMap<_, _>, PreparedQueryRule>>()
        };
        Ok(Self {
            service: one(&self.service)?,
            nearest: self.nearest,
            datacenters: list(&self.datacenters)?,
            only_passing: self.only_passing,
            ignored_checks: list(&self.ignored_checks)?,
            near: one(&self.near)?,
            tags: list(&self.tags)?,
            node_meta: map(&self.node_meta)?,
            service_meta: map(&self.service_meta)?,
        })
    }
}

impl Values<'_> {
    fn rendered(&self, text: &str) -> Result<String, PreparedQueryRule> {
        let refused = |rule| PreparedQueryRule::Format { text: text.to_owned(), rule };
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, behind) = rest.split_at(at);
            if let Some(before) = before.strip_suffix('$') {
                out.push_str(before);
                out.push_str("${");
                rest = behind.get(2..).unwrap_or_default();
                continue;
            }
            out.push_str(before);
            let inner = behind.get(2..).unwrap_or_default();
            let (name, behind) = inner.split_once('}').ok_or_else(|| refused("no } ends it"))?;
            let value = self.value(name.trim());
            out.push_str(value.ok_or_else(|| refused("it asks for a value that is not known"))?);
            rest = behind;
        }
        out.push_str(rest);
        Ok(out)
    }

    fn value(&self, name: &str) -> Option<&str> {
        Some(match name {
            "name.full" => self.full,
            "name.prefix" => self.prefix,
            "name.suffix" => self.suffix,
            // Segments are not built: each agent is in the one without a name.
            "agent.segment" => "",
            _ => {
                let number = name.strip_prefix("match(")?.strip_suffix(')')?;
                let number: usize = number.trim().parse().ok()?;
                self.groups.get(number).copied().unwrap_or_default()
            }
        })
    }
}
