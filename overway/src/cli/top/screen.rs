//! The terminal: keys in, frames out, and everything as it was at the end, whatever ends it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};

use super::News;
use super::view::{Pane, View};
use crate::cli::failure::Failure;

/// How long a key is waited for before the next look is shown.
const KEY_WAIT: Duration = Duration::from_millis(100);
/// Rows of a page.
const PAGE: usize = 20;

/// Puts the terminal back when it is dropped.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Shows news until a key or a signal ends it.
pub(super) fn run(mut view: View, news: &Receiver<News>) -> Result<(), Failure> {
    let ended = ended_by_signal()?;
    // Besides, a panic puts the terminal back before it is printed.
    let mut terminal = ratatui::try_init().map_err(Failure::failed)?;
    let _restored = Restored;
    while !ended.load(Ordering::Relaxed) {
        terminal.draw(|frame| view.draw(frame)).map_err(Failure::failed)?;
        if event::poll(KEY_WAIT).map_err(Failure::failed)?
            && let Event::Key(key) = event::read().map_err(Failure::failed)?
            && key.kind != KeyEventKind::Release
            && !press(&mut view, key)
        {
            break;
        }
        while let Ok(news) = news.try_recv() {
            view.take(news);
        }
    }
    Ok(())
}

/// Set by SIGTERM and SIGHUP. Ctrl-C is a key here.
fn ended_by_signal() -> Result<Arc<AtomicBool>, Failure> {
    let ended = Arc::<AtomicBool>::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::failed)?;
    let (mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        let of = |kind| signal(kind).map_err(Failure::failed);
        (of(SignalKind::terminate())?, of(SignalKind::hangup())?)
    };
    let told = Arc::clone(&ended);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        told.store(true, Ordering::Relaxed);
    });
    Ok(ended)
}

/// Does what a key says; `false` if that is to end.
fn press(view: &mut View, key: KeyEvent) -> bool {
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
        KeyCode::Char('q') | KeyCode::Esc => return false,
        KeyCode::Tab | KeyCode::Right => view.show(view.pane.next()),
        KeyCode::BackTab | KeyCode::Left => view.show(view.pane.before()),
        KeyCode::Char('1') => view.show(Pane::Links),
        KeyCode::Char('2') => view.show(Pane::Relays),
        KeyCode::Char('3') => view.show(Pane::Events),
        KeyCode::Char('4') => view.show(Pane::Flows),
        KeyCode::Char('s') => view.sort_by_next(),
        KeyCode::Char('r') => view.reverse(),
        KeyCode::Char(' ') => view.paused = !view.paused,
        KeyCode::Down | KeyCode::Char('j') => view.scroll_down(1),
        KeyCode::Up | KeyCode::Char('k') => view.scroll_up(1),
        KeyCode::PageDown => view.scroll_down(PAGE),
        KeyCode::PageUp => view.scroll_up(PAGE),
        KeyCode::Home => view.scroll_up(usize::MAX),
        KeyCode::End => view.scroll_down(usize::MAX),
        _ => {}
    }
    true
}

/// One frame without a terminal.
pub(super) fn as_text(view: &mut View, (columns, rows): (u16, u16)) -> Result<String, Infallible> {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows))?;
    terminal.draw(|frame| view.draw(frame))?;
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for line in buffer.content().chunks(usize::from(columns)) {
        let line: String = line.iter().map(ratatui::buffer::Cell::symbol).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    Ok(text.trim_end().to_owned() + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressed(view: &mut View, code: KeyCode) -> bool {
        press(view, KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn keys_change_panes_order_and_end_it() {
        let mut view = View::default();

        assert!(pressed(&mut view, KeyCode::Tab) && view.pane == Pane::Relays);
        assert!(pressed(&mut view, KeyCode::BackTab) && view.pane == Pane::Links);
        assert!(pressed(&mut view, KeyCode::Char('3')) && view.pane == Pane::Events);
        assert!(pressed(&mut view, KeyCode::Char('4')) && view.pane == Pane::Flows);
        assert!(pressed(&mut view, KeyCode::Tab) && view.pane == Pane::Links);
        assert!(pressed(&mut view, KeyCode::Char('s')) && view.sorting().column == Some(0));
        assert!(pressed(&mut view, KeyCode::Char('r')) && view.sorting().reversed);
        assert!(pressed(&mut view, KeyCode::Char(' ')) && view.paused);
        assert!(!pressed(&mut view, KeyCode::Char('q')));
        assert!(!press(&mut view, KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)));
    }
}
