//! A table for a terminal: aligned columns, no line longer than the terminal is wide.

use crate::terminal::{Terminal, printable};

/// Blanks between two columns.
const GAP: &str = "  ";
/// Width below which a column is not cut.
const COLUMNS_MIN: usize = 8;
/// Width above which a column is cut, so that one long text does not widen every row. The last column has no such limit.
const COLUMNS_MAX: usize = 64;

/// A table.
#[derive(Debug)]
pub struct Table {
    /// The headings, then the rows. All have the same number of cells.
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates a table with headings.
    #[must_use]
    pub fn new(headings: &[&str]) -> Self {
        let headings = headings.iter().map(|heading| (*heading).to_owned()).collect();
        Self { rows: vec![headings] }
    }

    /// Adds a row, which has a cell for each heading.
    pub fn add(&mut self, row: Vec<String>) {
        self.rows.push(row.iter().map(|cell| printable(cell)).collect());
    }

    /// Returns the lines. The widest columns are cut until the lines fit the terminal.
    #[must_use]
    pub fn lines(&self, terminal: &Terminal) -> Vec<String> {
        let columns = self.rows[0].len();
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max();
        let mut widths: Vec<usize> = (0..columns)
            .map(|column| width(column).unwrap_or_default())
            .collect();
        if let Some((_last, others)) = widths.split_last_mut() {
            others
                .iter_mut()
                .for_each(|width| *width = (*width).min(COLUMNS_MAX));
        }
        if let Some((line_max, _)) = terminal.size {
            let gaps = GAP.len() * columns.saturating_sub(1);
            while widths.iter().sum::<usize>() + gaps > line_max {
                match widths.iter_mut().max().filter(|widest| **widest > COLUMNS_MIN) {
                    Some(widest) => *widest -= 1,
                    None => break,
                }
            }
        }
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths);
            let cells = cells.map(|(cell, width)| format!("{:width$}", cut(cell, *width)));
            let line = cells.collect::<Vec<_>>().join(GAP);
            let line = line.trim_end();
            match terminal.size {
                Some((line_max, _)) => line.chars().take(line_max).collect(),
                None => line.to_owned(),
            }
        };
        self.rows.iter().map(line).collect()
    }
}

/// Returns `text` if it has at most `width` characters, otherwise its beginning and a sign that it is cut.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_the_widest_is_cut() {
        let mut table = Table::new(&["NODE", "STATE", "ERROR"]);
        table.add(vec!["n1".into(), "up".into(), String::new()]);
        table.add(vec![
            "node-2".into(),
            "down".into(),
            "cannot connect\x07 at all".into(),
        ]);
        let wide = table.lines(&Terminal::default());
        assert_eq!(
            wide,
            [
                "NODE    STATE  ERROR",
                "n1      up",
                "node-2  down   cannot connect? at all"
            ]
        );
        let narrow = Terminal::of_size(26, 10);
        assert_eq!(table.lines(&narrow)[2], "node-2  down   cannot con…");
        table.add(vec!["n".repeat(300), "up".into(), "e".repeat(300)]);
        let wide = table.lines(&Terminal::default());
        let blanks = wide[1].find("up").unwrap();
        assert_eq!(blanks, COLUMNS_MAX + GAP.len());
        assert!(wide[3].contains("n…  up     eee") && wide[3].ends_with(&"e".repeat(300)));
        let tiny = Terminal::of_size(5, 10);
        assert!(table.lines(&tiny).iter().all(|line| line.chars().count() <= 5));
    }
}
