//! What the threads of the real binary ask of the scheduler, as the kernel tells it.

use std::{collections::BTreeMap, fs};

use crate::support::{Backend, Penstock};

/// Nanoseconds that a thread runs at a time, by its name and id. None where the kernel tells nothing of it.
fn turns(process: u32) -> Option<BTreeMap<String, String>> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    threads
        .map(|thread| {
            let folder = thread.unwrap().path();
            let told = fs::read_to_string(folder.join("sched")).ok()?;
            let turn = told.lines().find_map(|line| line.strip_prefix("se.slice")?.split(':').nth(1))?.trim().to_owned();
            let name = fs::read_to_string(folder.join("comm")).ok()?;
            Some((format!("{} {}", name.trim(), folder.file_name()?.display()), turn))
        })
        .collect()
}

/// Threads have turns of their own since Linux 6.12.
fn own_turns() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.trim().parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(12))
}

#[test]
fn workers_have_short_turns_and_the_threads_beside_them_long_ones() {
    let backend = Backend::start("one");
    let penstock = Penstock::start(&["proxy", "--from", "a.test", "--to", &backend.url(), "--workers", "2"]);
    assert_eq!(penstock.get("a.test", "/"), (200, "one".to_owned()));
    let Some(turns) = turns(penstock.id()).filter(|_| own_turns()) else {
        println!("this kernel has no turns of a thread's own, or does not tell them");
        return;
    };
    let (workers, others): (Vec<_>, Vec<_>) = turns.iter().partition(|(name, _)| name.starts_with("worker-"));
    assert!(workers.len() == 2 && others.len() >= 3, "{turns:?}");
    assert!(workers.iter().all(|(_, turn)| *turn == "1000000"), "{turns:?}");
    assert!(others.iter().all(|(_, turn)| *turn == "4000000"), "{turns:?}");
}
