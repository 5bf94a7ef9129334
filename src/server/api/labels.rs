//! `/api/v1/series`, `/api/v1/labels`, `/api/v1/label/{name}/values`.

use super::super::app::App;
use super::super::error::{ApiError, ErrorKind};
use super::super::http::params::Params;
use super::super::http::stream::{self, Text};
use super::super::json::{self, LabelSetTexts};
use super::on_query_thread;
use super::selectors::{matcher_sets, required_matcher_sets, time_range, unescape_name};
use crate::budget::{Part, Refused};
use crate::storage::{Listing, View};
use axum::extract::{Path, Request, State};
use axum::response::Response;
use std::sync::Arc;
use std::time::Instant;

/// `GET,POST /api/v1/series`
pub async fn series(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let params = Params::read(request, &app).await?;
    let sets = required_matcher_sets(&params)?;
    let range = time_range(&params)?;
    answer(&app, params, move |view| view.series(&sets, range), LabelSetTexts::new).await
}

/// `GET,POST /api/v1/labels`
pub async fn names(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let params = Params::read(request, &app).await?;
    let sets = matcher_sets(&params)?;
    let range = time_range(&params)?;
    answer(&app, params, move |view| view.label_names(&sets, range), |names| names).await
}

/// `GET /api/v1/label/{name}/values`
pub async fn values(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let params = Params::read(request, &app).await?;
    let name = unescape_name(&name);
    if name.is_empty() {
        return Err(ApiError::bad_data("invalid label name: \"\""));
    }
    let sets = matcher_sets(&params)?;
    let range = time_range(&params)?;
    let find = move |view: &View| view.label_values(&name, &sets, range);
    answer(&app, params, find, |values| values).await
}

/// Answers with the list that `find` gives, as `items_of` makes it ready to be written: no more than `limit`.
async fn answer<L: 'static, I: Items>(
    app: &Arc<App>,
    params: Params,
    find: impl FnOnce(&View) -> Listing<L> + Send + 'static,
    items_of: fn(L) -> I,
) -> Result<Response, ApiError> {
    let limit = params.limit()?;
    let deadline = Instant::now() + app.args.query_timeout;
    let begun = on_query_thread(app, deadline, move |app, db, _| {
        let memory = Arc::new(app.memory.reservation(Part::Queries));
        let found = find(&db.view().within(Some(&memory)));
        let no_memory = |refused: Refused| {
            let text = format!("not enough memory for what was found: {refused}");
            ApiError::new(ErrorKind::Execution, text)
        };
        if let Some(refused) = found.refused {
            return Err(no_memory(refused));
        }
        let mut list = found.map(items_of);
        memory.grow(list.items.text_bytes() as u64).map_err(no_memory)?;
        let shown = list.items.count().min(limit.unwrap_or(usize::MAX));
        if shown < list.items.count() {
            list.warnings.push("results truncated due to limit".to_owned());
        }
        let mut tail = Vec::new();
        json::notes(&mut tail, "warnings", &list.warnings);
        tail.push(b'}');
        stream::begin(ListText { list, shown, tail, next: 0 }, memory)
    });
    Ok(json::response(begun.await?.into_body()))
}

/// What a list is made of.
trait Items: Send + 'static {
    /// How many items there are.
    fn count(&self) -> usize;
    /// Adds the item at `index`.
    fn write(&self, out: &mut Vec<u8>, index: usize);
    /// What was made ready for writing.
    fn text_bytes(&self) -> usize {
        0
    }
}

impl Items for Vec<String> {
    fn count(&self) -> usize {
        self.len()
    }

    fn write(&self, out: &mut Vec<u8>, index: usize) {
        json::text(out, &self[index]);
    }
}

impl Items for LabelSetTexts {
    fn count(&self) -> usize {
        LabelSetTexts::count(self)
    }

    fn write(&self, out: &mut Vec<u8>, index: usize) {
        LabelSetTexts::write(self, out, index);
    }

    fn text_bytes(&self) -> usize {
        self.len_bytes()
    }
}

/// An answer that is a list, written as it is read.
struct ListText<I> {
    list: Listing<I>,
    shown: usize,
    /// What stands behind the list.
    tail: Vec<u8>,
    /// The item that is next; beyond the last, nothing is.
    next: usize,
}

impl<I: Items> Text for ListText<I> {
    fn write(&mut self, out: &mut Vec<u8>, until: usize) -> bool {
        while self.next <= self.shown && out.len() < until {
            if self.next == 0 {
                out.extend_from_slice(json::SUCCESS);
                out.push(b'[');
            }
            if self.next == self.shown {
                out.push(b']');
                out.append(&mut self.tail);
            } else {
                if self.next > 0 {
                    out.push(b',');
                }
                self.list.items.write(out, self.next);
            }
            self.next += 1;
        }
        self.next <= self.shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_the_same_in_whatever_pieces_it_is_written() {
        let texts = |n: usize| (0..n).map(|i| format!("value \"{i}\"")).collect::<Vec<String>>();
        for (count, shown) in [(0, 0), (1, 1), (1, 0), (40, 40), (40, 39)] {
            let written = |piece: usize| {
                let list = Listing::<Vec<String>>::default().map(|_| texts(count));
                let mut text = ListText { list, shown, tail: br#","warnings":["w"]}"#.to_vec(), next: 0 };
                let (mut all, mut more) = (Vec::new(), true);
                while more {
                    let until = all.len() + piece;
                    more = text.write(&mut all, until);
                }
                String::from_utf8(all).unwrap()
            };
            let whole = written(usize::MAX >> 1);
            let parsed: serde_json::Value = serde_json::from_str(&whole).unwrap();
            assert_eq!(parsed["data"], serde_json::json!(texts(count)[..shown]));
            assert_eq!(parsed["warnings"], serde_json::json!(["w"]));
            for piece in [1, 7, 100] {
                assert_eq!(written(piece), whole);
            }
        }
    }
}
