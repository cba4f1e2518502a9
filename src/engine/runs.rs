//! The index of runs: an SQLite file beside their folders, filled from the folders and rebuilt from them when lost.
//!
//! The folders are the truth; the index only makes listing many of them quick.

use super::run_folder::{self, RunSummary, Status};
use rusqlite::{Connection, ErrorCode, Row, params};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// File of the index, in the folder of runs.
const FILE: &str = "runs.sqlite";
/// Layout of the table; an index of another layout is rebuilt.
const VERSION: i64 = 1;
/// Folders deep that runs are looked for.
const DEPTH: usize = 2;
/// Most folders that one search looks into.
const MOST_FOLDERS: usize = 100_000;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS runs (
    name TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    data TEXT NOT NULL,
    started INTEGER NOT NULL,
    iteration INTEGER NOT NULL,
    iterations INTEGER NOT NULL,
    best_ap REAL,
    status TEXT NOT NULL,
    config TEXT NOT NULL
)";

/// Why the index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunsError {
    #[error("the index of runs failed ({cause}); remove it to have it rebuilt: {}", .path.display())]
    Index { cause: rusqlite::Error, path: PathBuf },
    #[error("cannot {action} ({cause}): {}", .path.display())]
    File { action: &'static str, cause: std::io::Error, path: PathBuf },
    #[error("no run is called {name:?}; look at the folder of runs: {}", .root.display())]
    Unknown { name: String, root: PathBuf },
}

/// One setting in which two runs differ; none where one of them has no such setting.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// Dotted path of the setting.
    pub key: String,
    pub left: Option<String>,
    pub right: Option<String>,
}

/// An open index.
pub struct Runs {
    index: Connection,
    root: PathBuf,
    /// The index was damaged or of another version and was made anew.
    pub rebuilt: bool,
}

impl Runs {
    /// Opens the index of the runs in `root`, making folder and index where they are missing. A damaged index is set
    /// aside as `runs.sqlite.damaged` and rebuilt from the folders.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn open(root: &Path) -> Result<Self, RunsError> {
        let file = |action| move |cause| RunsError::File { action, cause, path: root.to_path_buf() };
        std::fs::create_dir_all(root).map_err(file("make the folder of runs"))?;
        let path = root.join(FILE);
        let fresh = !path.exists();
        let (index, rebuilt) = match connect(&path) {
            Ok(index) => (index, false),
            Err(cause) if is_damage(&cause) => {
                std::fs::rename(&path, root.join(format!("{FILE}.damaged")))
                    .map_err(file("set a damaged index aside"))?;
                (connect(&path).map_err(|cause| RunsError::Index { cause, path: path.clone() })?, true)
            }
            Err(cause) => return Err(RunsError::Index { cause, path }),
        };
        let mut runs = Self { index, root: root.to_path_buf(), rebuilt };
        if fresh || rebuilt {
            runs.scan()?;
        }
        Ok(runs)
    }

    /// Reads every run folder anew and forgets those that are gone; gives the number of runs.
    ///
    /// # Errors
    /// An index that cannot be written.
    pub fn scan(&mut self) -> Result<usize, RunsError> {
        let mut names = Vec::new();
        let mut looked = 0;
        find(&self.root, "", DEPTH, &mut looked, &mut names);
        let found: Vec<RunSummary> =
            names.iter().filter_map(|name| run_folder::read(&self.root.join(name), name)).collect();
        let path = self.root.join(FILE);
        let mut write = || -> rusqlite::Result<()> {
            let transaction = self.index.transaction()?;
            transaction.execute("DELETE FROM runs", [])?;
            for summary in &found {
                insert(&transaction, summary)?;
            }
            transaction.commit()
        };
        write().map_err(|cause| RunsError::Index { cause, path })?;
        Ok(found.len())
    }

    /// Reads one run's folder anew: at its start, now and then while it goes on, and at its end.
    ///
    /// # Errors
    /// An index that cannot be written, or a folder that holds no run.
    pub fn note(&self, folder: &Path) -> Result<(), RunsError> {
        let inside = folder.strip_prefix(&self.root).unwrap_or(folder);
        let name = inside.to_string_lossy().into_owned();
        let unknown = || RunsError::Unknown { name: name.clone(), root: self.root.clone() };
        let summary = run_folder::read(folder, &name).ok_or_else(unknown)?;
        insert(&self.index, &summary).map_err(|cause| self.failed(cause))
    }

    /// All runs, the newest first.
    ///
    /// # Errors
    /// An index that cannot be read.
    pub fn list(&self) -> Result<Vec<RunSummary>, RunsError> {
        let read = || -> rusqlite::Result<Vec<RunSummary>> {
            let mut statement = self.index.prepare(
                "SELECT name, model, data, started, iteration, iterations, best_ap, status, config
                 FROM runs ORDER BY started DESC, name",
            )?;
            statement.query_map([], summary)?.collect()
        };
        read().map_err(|cause| self.failed(cause))
    }

    /// The settings in which two runs differ, by their dotted names.
    ///
    /// # Errors
    /// A name that no run has, or an index that cannot be read.
    pub fn difference(&self, left: &str, right: &str) -> Result<Vec<Difference>, RunsError> {
        let (left, right) = (self.settings(left)?, self.settings(right)?);
        let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
        let differing = keys.into_iter().filter(|key| left.get(*key) != right.get(*key));
        let difference = |key: &String| Difference {
            key: key.clone(),
            left: left.get(key).cloned(),
            right: right.get(key).cloned(),
        };
        Ok(differing.map(difference).collect())
    }

    fn settings(&self, name: &str) -> Result<BTreeMap<String, String>, RunsError> {
        let runs = self.list()?;
        let unknown = || RunsError::Unknown { name: name.to_string(), root: self.root.clone() };
        let run = runs.iter().find(|run| run.name == name).ok_or_else(unknown)?;
        Ok(settings(&run.config))
    }

    fn failed(&self, cause: rusqlite::Error) -> RunsError {
        RunsError::Index { cause, path: self.root.join(FILE) }
    }
}

/// Opens the file and makes sure that its table is there and reads.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let index = Connection::open(path)?;
    index.busy_timeout(Duration::from_secs(5))?;
    let version: i64 = index.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version != VERSION {
        index.execute_batch("DROP TABLE IF EXISTS runs")?;
    }
    index.execute_batch(&format!("{TABLE}; PRAGMA user_version = {VERSION}"))?;
    let _: i64 = index.query_row("SELECT COUNT(best_ap) FROM runs", [], |row| row.get(0))?;
    let state: String = index.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if state == "ok" { Ok(index) } else { Err(damage(&state)) }
}

fn damage(state: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), Some(state.to_string()))
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

/// Numbers beyond SQLite's are as good as its largest.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn insert(index: &Connection, run: &RunSummary) -> rusqlite::Result<()> {
    index.execute(
        "INSERT OR REPLACE INTO runs (name, model, data, started, iteration, iterations, best_ap, status, config)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            run.name,
            run.model,
            run.data,
            integer(run.started),
            integer(run.iteration),
            integer(run.iterations),
            run.best_ap,
            run.status.name(),
            run.config
        ],
    )?;
    Ok(())
}

fn summary(row: &Row<'_>) -> rusqlite::Result<RunSummary> {
    let natural = |column: usize| -> rusqlite::Result<u64> { Ok(row.get::<_, i64>(column)?.max(0).unsigned_abs()) };
    let status: String = row.get(7)?;
    Ok(RunSummary {
        name: row.get(0)?,
        model: row.get(1)?,
        data: row.get(2)?,
        started: natural(3)?,
        iteration: natural(4)?,
        iterations: natural(5)?,
        best_ap: row.get(6)?,
        status: status.parse().unwrap_or(Status::Unfinished),
        config: row.get(8)?,
    })
}

/// Names of the folders below `folder` that hold a run, in order.
fn find(folder: &Path, name: &str, depth: usize, looked: &mut usize, out: &mut Vec<String>) {
    *looked += 1;
    if depth == 0 || *looked > MOST_FOLDERS {
        return;
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    // A link may lead in a circle, and is not followed.
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut inner: Vec<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    inner.sort();
    for part in inner {
        let path = folder.join(&part);
        let name = if name.is_empty() { part } else { format!("{name}/{part}") };
        if path.join("config.toml").is_file() {
            out.push(name);
        } else {
            find(&path, &name, depth - 1, looked, out);
        }
    }
}

/// The settings of a configuration, by dotted name; none where it does not read.
pub fn settings(config: &str) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    if let Ok(table) = toml::from_str::<toml::Value>(config) {
        flatten(&table, String::new(), &mut settings);
    }
    settings
}

fn flatten(value: &toml::Value, key: String, out: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                flatten(value, key, out);
            }
        }
        value => _ = out.insert(key, value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Arch;
    use crate::train::RunConfig;

    fn write_run(folder: &Path, change: impl FnOnce(&mut RunConfig)) {
        let dataset = crate::data::open("shapes:train=1,val=1,test=1", None).unwrap();
        let mut config = RunConfig::new(Arch::SsdNano, "shapes", &dataset);
        change(&mut config);
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("config.toml"), toml::to_string(&config).unwrap()).unwrap();
    }

    fn names(runs: &Runs) -> Vec<String> {
        runs.list().unwrap().into_iter().map(|run| run.name).collect()
    }

    #[test]
    fn runs_are_found_noted_compared_and_forgotten() {
        let root = tempfile::tempdir().unwrap();
        write_run(&root.path().join("a"), |_| {});
        write_run(&root.path().join("deep/b"), |config| config.train.batch = 3);
        let runs = Runs::open(root.path()).unwrap();
        assert_eq!(names(&runs), ["a", "deep/b"]);
        let differences = runs.difference("a", "deep/b").unwrap();
        assert_eq!(differences.len(), 1, "{differences:?}");
        assert_eq!((differences[0].key.as_str(), differences[0].right.as_deref()), ("train.batch", Some("3")));
        write_run(&root.path().join("c"), |_| {});
        assert!(runs.note(&root.path().join("none")).is_err());
        runs.note(&root.path().join("c")).unwrap();
        drop(runs);
        let mut runs = Runs::open(root.path()).unwrap();
        assert_eq!(names(&runs), ["a", "c", "deep/b"]);
        std::fs::remove_dir_all(root.path().join("a")).unwrap();
        assert_eq!(runs.scan().unwrap(), 2);
        assert!(matches!(runs.difference("a", "c"), Err(RunsError::Unknown { .. })));
    }

    #[test]
    fn a_damaged_index_is_set_aside_and_rebuilt() {
        let root = tempfile::tempdir().unwrap();
        write_run(&root.path().join("a"), |_| {});
        std::fs::write(root.path().join(FILE), "this is no database, and long enough to be taken for one".repeat(40))
            .unwrap();
        let runs = Runs::open(root.path()).unwrap();
        assert!(runs.rebuilt);
        assert_eq!(names(&runs), ["a"]);
        assert!(root.path().join("runs.sqlite.damaged").exists());
    }
}
