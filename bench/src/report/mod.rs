//! What a run leaves: the table, results.json, plots, the page.

mod page;
pub mod results;
mod svg;
mod table;

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

/// Writes everything.
pub fn write(results: &Results, places: &Places) -> anyhow::Result<()> {
    let write = |path: &Path, text: &str| fs::write(path, text).with_context(|| path.display().to_string());
    fs::create_dir_all(&places.folder)?;
    write(&places.folder.join("results.json"), &(serde_json::to_string_pretty(results)? + "\n"))?;
    for group in Group::ALL {
        if let Some(plot) = svg::plot(results, group) {
            write(&places.folder.join(group.file()), &plot)?;
        }
    }
    write(&places.page, &page::page(results, places.link))
}

/// Writes plots and page again from a results.json.
pub fn rewrite(path: &Path, docs: bool) -> anyhow::Result<()> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let results: Results = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let beside = path.parent().unwrap_or(Path::new(".")).to_path_buf();
    let places = if docs { Places::docs() } else { Places::in_folder(beside) };
    write(&results, &places)?;
    print!("{}", table(&results));
    Ok(())
}
