//! Random expressions, printed and parsed, judge as a model does that only walks them.

use super::super::compile;
use super::super::parse::{Expression, Match, Operator, parse};
use super::*;
use proptest::prelude::*;

/// What a selector finds in a row.
enum Value {
    Text(String),
    Number(i64),
    List(Vec<String>),
    Missing,
}

fn select(service: &Service, selector: &[String]) -> Value {
    let path: Vec<&str> = selector.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["Service"] => Value::Text(service.name.as_str().to_owned()),
        ["Port"] => Value::Number(service.port),
        ["Tags"] => Value::List(service.tags.clone()),
        ["Meta"] => Value::List(service.meta.keys().cloned().collect()),
        ["Meta", key] => service.meta.get(*key).map_or(Value::Missing, |v| Value::Text(v.clone())),
        _ => panic!("{path:?}"),
    }
}

fn judge(expression: &Expression, service: &Service) -> bool {
    let wanted = match expression {
        Expression::Or(parts) => return parts.iter().any(|part| judge(part, service)),
        Expression::And(parts) => return parts.iter().all(|part| judge(part, service)),
        Expression::Not(inner) => return !judge(inner, service),
        Expression::Match(wanted) => wanted,
    };
    let value = &wanted.value;
    let is_so = match (select(service, &wanted.selector), wanted.operator) {
        (Value::Text(text), Operator::Equal) => text == *value,
        (Value::Text(text), Operator::In | Operator::Matches) => text.contains(value),
        (Value::Number(number), Operator::Equal) => number.to_string() == *value,
        (Value::List(list), Operator::In) => list.contains(value),
        (Value::List(list), Operator::Empty) => list.is_empty(),
        (Value::Missing, Operator::Matches) => return true,
        (Value::Missing, Operator::Equal | Operator::In) => false,
        (
            Value::Text(_) | Value::Number(_) | Value::List(_) | Value::Missing,
            Operator::Equal | Operator::In | Operator::Empty | Operator::Matches,
        ) => panic!("{wanted:?}"),
    };
    is_so != wanted.negated
}

/// The text of an expression; `form` chooses among the ways to write it.
fn print(expression: &Expression, form: usize) -> String {
    let joined = |parts: &[Expression], word: &str| {
        let parts: Vec<String> =
            parts.iter().map(|part| format!("({})", print(part, form + 1))).collect();
        parts.join(word)
    };
    match expression {
        Expression::Or(parts) => joined(parts, " or "),
        Expression::And(parts) => joined(parts, "\n and\t"),
        Expression::Not(inner) => format!("not ( {} )", print(inner, form + 1)),
        Expression::Match(wanted) => print_match(wanted, form),
    }
}

fn print_match(wanted: &Match, form: usize) -> String {
    let selector = match (wanted.selector.as_slice(), form % 2) {
        ([name, key], 1) => format!("{name}[ `{key}`]"),
        (path, _) => path.join("."),
    };
    let value = match form % 3 {
        0 => format!("`{}`", wanted.value),
        1 => format!("\"{}\"", wanted.value),
        _ => wanted.value.clone(),
    };
    let not = if wanted.negated { "not " } else { "" };
    match (wanted.operator, form % 2) {
        (Operator::Equal, space) => {
            let space = " ".repeat(space);
            let symbol = if wanted.negated { "!=" } else { "==" };
            format!("{selector}{space}{symbol}{space}{value}")
        }
        (Operator::In, 0) => format!("{value} {not}in {selector}"),
        (Operator::In, _) => format!("{selector} {not}contains {value}"),
        (Operator::Matches, _) => format!("{selector} {not}matches {value}"),
        (Operator::Empty, _) => format!("{selector} is {not}empty"),
    }
}

fn matches() -> impl Strategy<Value = Expression> {
    let of = |operators: &'static [Operator], selectors: &'static [&'static str]| {
        (prop::sample::select(operators), prop::sample::select(selectors))
    };
    let texts =
        of(&[Operator::Equal, Operator::In, Operator::Matches], &["Service", "Meta.a", "Meta.b"]);
    let numbers = of(&[Operator::Equal], &["Port"]);
    let lists = of(&[Operator::In, Operator::Empty], &["Tags", "Meta"]);
    let word = prop::sample::select(vec!["a", "b", "ab"]).prop_map(str::to_owned);
    let made = |((operator, selector), value, negated): ((Operator, &str), String, bool)| {
        let selector = selector.split('.').map(str::to_owned).collect();
        let value = if operator == Operator::Empty { String::new() } else { value };
        Expression::Match(Match { selector, operator, negated, value })
    };
    let number = (0..3_i64).prop_map(|number| number.to_string());
    prop_oneof![
        3 => (texts, word.clone(), any::<bool>()).prop_map(made),
        1 => (numbers, number, any::<bool>()).prop_map(made),
        2 => (lists, word, any::<bool>()).prop_map(made),
    ]
}

fn expressions() -> impl Strategy<Value = Expression> {
    matches().prop_recursive(4, 24, 3, |inner| {
        let parts = || prop::collection::vec(inner.clone(), 2..4);
        prop_oneof![
            parts().prop_map(Expression::Or),
            parts().prop_map(Expression::And),
            inner.prop_map(|inner| Expression::Not(Box::new(inner))),
        ]
    })
}

fn services() -> impl Strategy<Value = Service> {
    let word = || prop::sample::select(vec!["a", "b", "ab"]).prop_map(str::to_owned);
    let meta = prop::collection::btree_map(word(), word(), 0..3);
    (word(), 0..3_i64, prop::collection::vec(word(), 0..3), meta)
        .prop_map(|(name, port, tags, meta)| Service { port, tags, meta, ..service("id", &name) })
}

proptest! {
    #[test]
    fn a_printed_expression_judges_as_the_model(
        expression in expressions(),
        form in 0..6_usize,
        rows in prop::collection::vec(services(), 1..8),
    ) {
        let text = print(&expression, form);
        let parsed = parse(&text).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        prop_assert_eq!(&parsed, &expression, "{}", text);
        match Filter::<Service>::parse(&text) {
            Ok(filter) => for row in &rows {
                prop_assert_eq!(filter.wants(row, "dc1"), judge(&expression, row), "{}", &text);
            },
            Err(error) => prop_assert_eq!(error, FilterError::TooManyExpressions),
        }
        let test = compile::compile::<Service>(&expression).unwrap();
        prop_assert_eq!(test(&rows[0], "dc1"), judge(&expression, &rows[0]));
    }

    #[test]
    fn any_text_is_read_or_refused(text in r#"[a-cN(){}\[\]"`.=! \\x0-9é\n]{0,40}"#) {
        if let Ok(filter) = Filter::<Node>::parse(&text) {
            filter.wants(&a_node(), "dc1");
        }
    }

    #[test]
    fn any_words_are_read_or_refused(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "Node", "Meta", ".a", "[`a`]", "==", "!=", "n1", "not", "and", "or", "in",
                "contains", "is", "empty", "matches", "(", ")", "5", "\"x\"", "`", "\"",
            ]),
            0..24,
        ),
        separator in prop::sample::select(vec![" ", ""]),
    ) {
        if let Ok(filter) = Filter::<Node>::parse(&words.join(separator)) {
            filter.wants(&a_node(), "dc1");
        }
    }
}
