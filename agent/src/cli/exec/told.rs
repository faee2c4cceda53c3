//! What nodes tell of a job: which entry means what, and how output is shown.

/// What an entry of a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The node has taken the job.
    Acknowledged,
    /// A piece of output; an empty one says that the job still runs.
    Output,
    /// The exit code.
    Exit,
}

impl Told {
    /// The node and the meaning of a key, without the folder that all are in.
    pub(super) fn of(key: &str) -> Option<(&str, Self)> {
        let (node, what) = key.split_once('/')?;
        let told = match what {
            "ack" => Self::Acknowledged,
            "exit" => Self::Exit,
            _ if what.starts_with("out/") => Self::Output,
            _ => return None,
        };
        Some((node, told))
    }
}

/// Output with the node's name before each line.
pub(super) fn lines(node: &str, output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<String> = text.split('\n').map(|line| format!("    {node}: {line}")).collect();
    lines.join("\n").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart() {
        assert_eq!(Told::of("n1/ack"), Some(("n1", Told::Acknowledged)));
        assert_eq!(Told::of("n1/out/00000"), Some(("n1", Told::Output)));
        assert_eq!(Told::of("n1/exit"), Some(("n1", Told::Exit)));
        assert_eq!([Told::of("job"), Told::of("n1/x")], [None; 2]);
    }

    #[test]
    fn each_line_has_its_node() {
        assert_eq!(lines("c1", b"hi\n"), "    c1: hi\n    c1:");
        assert_eq!(lines("c1", b"a\nb"), "    c1: a\n    c1: b");
    }
}
