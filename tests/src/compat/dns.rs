//! Questions that Debian's `dig` asks (bind9-dnsutils), and what it says of their answers.

use crate::http::Response;
use std::process::Command;

/// The port of every server here.
const PORT: &str = "8600";
/// What a step's own words come on top of: a bare question, asked once, whose answer is shown
/// without what differs from run to run.
const WORDS: &str = "+noall +comments +answer +authority +additional +noedns +nocookie +noadflag \
    +ignore +tries=1 +time=10";
/// The sections in their order.
const SECTIONS: [&str; 3] = ["ANSWER", "AUTHORITY", "ADDITIONAL"];

/// Asks a server with these words of `dig`. Its exit code stands for the status, [`text`] for the
/// body.
pub(super) fn ask(server: &str, words: &str) -> Response {
    let at = format!("@{server}");
    let output = Command::new("dig")
        .args(["-r", &at, "-p", PORT])
        .args(WORDS.split_whitespace())
        .args(words.split(' '))
        .output()
        .expect("dig is there (Debian: bind9-dnsutils)");
    let body = text(&String::from_utf8_lossy(&output.stdout));
    let status = output.status.code().and_then(|code| u16::try_from(code).ok());
    let bytes = body.clone().into_bytes();
    Response { status: status.unwrap_or(u16::MAX), headers: Vec::new(), body, bytes }
}

/// What matters of an answer, line by line: code, opcode if it is not QUERY, flags and the sizes of
/// the sections; what the OPT record says; the records, sorted within their sections since servers
/// shuffle them; the size of the message if `+stats` asks for it.
fn text(output: &str) -> String {
    let (mut code, mut place) = (String::new(), 0);
    let mut lines: Vec<(usize, String)> = Vec::new();
    for line in output.lines() {
        if let Some(head) = line.strip_prefix(";; ->>HEADER<<- ") {
            let opcode = Some(between(head, "opcode: ", ",")).filter(|opcode| *opcode != "QUERY");
            let words = std::iter::once(between(head, "status: ", ",")).chain(opcode);
            code = words.collect::<Vec<_>>().join(" ");
        } else if let Some(head) = line.strip_prefix(";; flags:") {
            let (flags, counts) = head.split_once(';').unwrap_or_default();
            let counts = counts.split(", ").filter_map(|count| count.split(": ").nth(1));
            let counts = counts.collect::<Vec<_>>().join("/");
            lines.push((0, format!("{code}{flags} {counts}")));
        } else if let Some(name) = line.strip_suffix(" SECTION:") {
            let name = name.trim_start_matches([';', ' ']);
            place = SECTIONS.iter().position(|section| *section == name).unwrap_or_default();
        } else if let Some(size) = line.strip_prefix(";; MSG SIZE  rcvd: ") {
            lines.push((5, format!("SIZE {size}")));
        } else if let Some(said) = line.strip_prefix("; ") {
            lines.push((1, said.to_owned()));
        } else if !line.is_empty() && !line.starts_with(';') {
            let record = line.split_whitespace().collect::<Vec<_>>().join(" ");
            lines.push((place + 2, format!("{} {record}", SECTIONS[place])));
        }
    }
    lines.sort();
    lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>().join("\n")
}

/// What stands in `text` between the first `open` and the next `close`.
fn between<'a>(text: &'a str, open: &str, close: &str) -> &'a str {
    let rest = text.split_once(open).unwrap_or_default().1;
    rest.split(close).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_of_an_answer_is_a_few_sorted_lines() {
        let output = "\
;; Got answer:
;; ->>HEADER<<- opcode: NOTIFY, status: NOERROR, id: 7
;; flags: qr aa; QUERY: 1, ANSWER: 2, AUTHORITY: 0, ADDITIONAL: 2
;; WARNING: recursion requested but not available

;; OPT PSEUDOSECTION:
; EDNS: version: 0, flags:; udp: 1232
; CLIENT-SUBNET: 10.1.0.0/16/0
;; ANSWER SECTION:
web.service.terraform.\t0\tIN\tA\t10.0.0.2
web.service.terraform.\t0\tIN\tA\t10.0.0.1

;; ADDITIONAL SECTION:
web.service.terraform.\t0\tIN\tTXT\t\"a=b c\"

;; MSG SIZE  rcvd: 100
";
        let lines = [
            "NOERROR NOTIFY qr aa 1/2/0/2",
            "CLIENT-SUBNET: 10.1.0.0/16/0",
            "EDNS: version: 0, flags:; udp: 1232",
            "ANSWER web.service.terraform. 0 IN A 10.0.0.1",
            "ANSWER web.service.terraform. 0 IN A 10.0.0.2",
            "ADDITIONAL web.service.terraform. 0 IN TXT \"a=b c\"",
            "SIZE 100",
        ];
        assert_eq!(text(output), lines.join("\n"));
        assert_eq!(text(";; no servers could be reached\n"), "");
    }
}
