//! What commands print: aligned columns.

/// Rows as columns two spaces apart, padded but for the last one.
pub(crate) fn table(rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = rows.into_iter().collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(column) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    let mut text = String::new();
    for row in &rows {
        let last = row.len().saturating_sub(1);
        for (column, cell) in row.iter().enumerate() {
            let width = if column == last { 0 } else { widths.get(column).copied().unwrap_or(0) };
            let gap = if column == 0 { "" } else { "  " };
            text.push_str(&format!("{gap}{cell:width$}"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_the_last_is_not_padded() {
        let rows = [["a", "long", "x"], ["bbb", "c", "yy"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(rows), "a    long  x\nbbb  c     yy\n");
    }
}
