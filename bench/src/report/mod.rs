//! What a run leaves: the table, results.json, plots, the page.

mod page;
pub mod results;
mod svg;
mod table;
pub mod tables;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::{peers, rows::Group};
pub use results::{Figure, PeerInfo, Results, RowResult};
pub use table::table;

/// Where things go.
#[derive(Clone, Debug)]
pub struct Places {
    /// results.json and the plots.
    pub folder: PathBuf,
    pub page: PathBuf,
    /// The folder as the page's links name it.
    pub link: &'static str,
}

impl Places {
    /// All in one folder.
    pub fn in_folder(folder: PathBuf) -> Self {
        Self { page: folder.join("benchmarks.md"), folder, link: "" }
    }

    /// In the documentation of the source tree.
    pub fn docs() -> Self {
        let docs = peers::source().join("docs");
        Self { folder: docs.join("benchmarks"), page: docs.join("benchmarks.md"), link: "benchmarks/" }
    }
}

/// The name of the results in their folder.
const RESULTS: &str = "results.json";

/// Writes everything. What a group without rows had is removed: it would belong to another run.
pub fn write(results: &Results, places: &Places) -> anyhow::Result<()> {
    fs::create_dir_all(&places.folder)?;
    put(&places.folder.join(RESULTS), &(serde_json::to_string_pretty(results)? + "\n"))?;
    for group in Group::ALL {
        let path = places.folder.join(group.file());
        match svg::plot(results, group) {
            Some(plot) => put(&path, &plot)?,
            None if path.exists() => fs::remove_file(&path).with_context(|| path.display().to_string())?,
            None => {}
        }
    }
    put(&places.page, &page::page(results, places.link))
}

/// By a rename: whoever is ended meanwhile leaves what was there before.
fn put(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut next = path.as_os_str().to_owned();
    next.push(".new");
    fs::write(&next, text).and_then(|()| fs::rename(&next, path)).with_context(|| path.display().to_string())
}

fn read(path: &Path) -> anyhow::Result<Results> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut results: Results = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    results.complete();
    Ok(results)
}

/// The results of an earlier run, if there are some.
pub fn earlier(places: &Places) -> anyhow::Result<Option<Results>> {
    let path = places.folder.join(RESULTS);
    path.exists().then(|| read(&path)).transpose()
}

/// Writes plots and page again from a results.json.
pub fn rewrite(path: &Path, docs: bool) -> anyhow::Result<()> {
    let results = read(path)?;
    let beside = path.parent().unwrap_or(Path::new(".")).to_path_buf();
    let places = if docs { Places::docs() } else { Places::in_folder(beside) };
    write(&results, &places)?;
    print!("{}", table(&results));
    Ok(())
}
