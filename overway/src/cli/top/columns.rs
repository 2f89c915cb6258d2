//! Columns of a pane: what is in them, by which of them rows are sorted, and which there is room for.

use std::cmp::Ordering;

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::widgets::{Cell, Row, Table};

/// Between two columns.
const SPACING: u16 = 1;

/// What is not known.
const UNKNOWN: &str = "unknown";

/// A column of rows of one kind.
pub(super) struct Column<T> {
    pub(super) title: &'static str,
    /// Cells of the terminal that it needs.
    pub(super) width: u16,
    /// Where there is no room for all, those with the greatest go first; those with 0 stay.
    pub(super) rank: u8,
    /// `None` if it is not known.
    pub(super) cell: fn(&T) -> Option<String>,
    /// What is shown above the other, of what is known.
    pub(super) order: fn(&T, &T) -> Ordering,
}

/// A column that needs so much room, and has this rank.
pub(super) fn column<T>(
    title: &'static str,
    (width, rank): (u16, u8),
    cell: fn(&T) -> Option<String>,
    order: fn(&T, &T) -> Ordering,
) -> Column<T> {
    Column { title, width, rank, cell, order }
}

/// By what rows are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sorting {
    /// The column; `None`: what is unwell first.
    pub(super) column: Option<usize>,
    /// The other way round.
    pub(super) reversed: bool,
}

impl Sorting {
    /// By the next of so many columns; after the last as at first.
    pub(super) fn next(self, columns: usize) -> Self {
        let column = match self.column {
            None => Some(0),
            Some(column) => Some(column + 1).filter(|&next| next < columns),
        };
        Self { column, reversed: false }
    }
}

/// What is drawn of a pane: its rows, in the order in which they are unwell.
pub(super) struct Pane<'a, T> {
    pub(super) columns: &'a [Column<T>],
    pub(super) rows: Vec<T>,
    pub(super) style: fn(&T) -> Style,
    /// The column that has what room is left over.
    pub(super) grows: usize,
}

impl<T> Pane<'_, T> {
    /// Sorts and draws what there is room for, from row `scroll` on.
    pub(super) fn draw(
        mut self,
        frame: &mut Frame<'_>,
        area: Rect,
        sorting: Sorting,
        scroll: usize,
    ) {
        self.sort(sorting);
        let shown = fitting(self.columns, area.width);
        let title = |&at: &usize| match (sorting.column == Some(at), sorting.reversed) {
            (false, _) => self.columns[at].title.to_owned(),
            (true, false) => format!("{}▼", self.columns[at].title),
            (true, true) => format!("{}▲", self.columns[at].title),
        };
        let heading = Row::new(shown.iter().map(title)).style(reversed());
        // What is below the screen is not made.
        let rows = self.rows.iter().skip(scroll).take(usize::from(area.height)).map(|row| {
            let text =
                |at: usize| (self.columns[at].cell)(row).unwrap_or_else(|| UNKNOWN.to_owned());
            let cells = shown.iter().map(|&at| Cell::from(text(at)));
            Row::new(cells).style((self.style)(row))
        });
        let widths = shown.iter().map(|&at| {
            let width = self.columns[at].width;
            if at == self.grows { Constraint::Min(width) } else { Constraint::Length(width) }
        });
        let table = Table::new(rows, widths).column_spacing(SPACING).header(heading);
        frame.render_widget(table, area);
    }

    /// What is not known comes last, either way round.
    fn sort(&mut self, sorting: Sorting) {
        let column = sorting.column.and_then(|at| self.columns.get(at));
        if let Some(column) = column {
            self.rows.sort_by(column.order);
        }
        if sorting.reversed {
            self.rows.reverse();
        }
        if let Some(column) = column {
            self.rows.sort_by_cached_key(|row| (column.cell)(row).is_none());
        }
    }
}

/// The columns that `width` has room for.
fn fitting<T>(columns: &[Column<T>], width: u16) -> Vec<usize> {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let needed = |shown: &[usize]| {
        let cells = shown.iter().map(|&at| columns[at].width).sum::<u16>();
        cells + SPACING * u16::try_from(shown.len()).unwrap_or(u16::MAX).saturating_sub(1)
    };
    while needed(&shown) > width {
        let last = shown.iter().copied().max_by_key(|&at| (columns[at].rank, at));
        match last.filter(|&at| columns[at].rank > 0) {
            Some(least) => shown.retain(|&at| at != least),
            None => break,
        }
    }
    shown
}

/// As headings are.
pub(super) fn reversed() -> Style {
    Style::default().add_modifier(Modifier::REVERSED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(width: u16, rank: u8) -> Column<u8> {
        column("x", (width, rank), |row| Some(row.to_string()), Ord::cmp)
    }

    #[test]
    fn what_is_not_known_comes_last_either_way_round() {
        let columns: [Column<Option<u8>>; 1] =
            [column("x", (5, 0), |row| row.map(|known| known.to_string()), Ord::cmp)];
        let sorted = |reversed| {
            let rows = vec![Some(2), None, Some(1), Some(3)];
            let mut pane = Pane { columns: &columns, rows, style: |_| Style::default(), grows: 0 };
            pane.sort(Sorting { column: Some(0), reversed });
            pane.rows
        };

        assert_eq!(sorted(false), [Some(1), Some(2), Some(3), None]);
        assert_eq!(sorted(true), [Some(3), Some(2), Some(1), None]);
    }

    #[test]
    fn the_least_important_columns_go_until_the_rest_fits() {
        let columns = [plain(10, 0), plain(10, 2), plain(5, 1), plain(10, 2)];

        for (width, expected) in [
            (38, vec![0, 1, 2, 3]),
            (37, vec![0, 1, 2]),
            (27, vec![0, 1, 2]),
            (26, vec![0, 2]),
            (15, vec![0]),
            (1, vec![0]),
        ] {
            assert_eq!(fitting(&columns, width), expected, "{width}");
        }
    }

    #[test]
    fn sorting_goes_through_all_columns_and_back() {
        let mut sorting = Sorting { reversed: true, ..Sorting::default() };
        let mut seen = Vec::new();
        for _ in 0..3 {
            sorting = sorting.next(2);
            assert!(!sorting.reversed);
            seen.push(sorting.column);
        }

        assert_eq!(seen, [Some(0), Some(1), None]);
    }
}
