//! What the threads of the real binary ask of the scheduler, as the kernel tells it.

use std::{collections::BTreeMap, fs};

use crate::support::{Backend, Penstock, eventually, proxy_route, write};

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

/// How nice each thread is, by its name and id (`proc_pid_stat(5)`, the nineteenth field).
fn niceness(process: u32) -> BTreeMap<String, i32> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    threads
        .filter_map(|thread| {
            let told = fs::read_to_string(thread.unwrap().path().join("stat")).ok()?;
            let (begin, rest) = told.rsplit_once(')')?;
            let (id, name) = begin.split_once(" (")?;
            Some((format!("{name} {id}"), rest.split_whitespace().nth(16)?.parse().ok()?))
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
    if !own_turns() || turns(penstock.id()).is_none() {
        println!("this kernel has no turns of a thread's own, or does not tell them");
        return;
    }
    // A thread asks when it begins, which is not when the other worker serves.
    eventually("turns of 1 ms for workers, and of 4 ms for all others", || {
        let turns = turns(penstock.id())?;
        println!("{turns:?}");
        let (workers, others): (Vec<_>, Vec<_>) = turns.iter().partition(|(name, _)| name.starts_with("worker-"));
        let asked = workers.iter().all(|(_, turn)| *turn == "1000000") && others.iter().all(|(_, turn)| *turn == "4000000");
        (asked && workers.len() == 2 && others.len() >= 3).then_some(())
    });
}

#[test]
fn those_who_make_changes_stand_back_and_workers_do_not() {
    let backend = Backend::start("one");
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("a.yaml"), &proxy_route("a", "a.test", &backend.url()));
    let penstock = Penstock::start(&["serve", folder.path().to_str().unwrap(), "--workers", "2"]);
    assert_eq!(penstock.get("a.test", "/"), (200, "one".to_owned()));
    let own = niceness(std::process::id()).into_values().min().unwrap();
    let back = (own + 5).min(19);
    // The main thread reads and publishes, and began the workers.
    eventually("workers as nice as they were begun, the main thread and those of the control side nicer by 5", || {
        let all = niceness(penstock.id());
        println!("{all:?}");
        let of = |name: &str| all.iter().filter(|(thread, _)| thread.starts_with(name)).map(|(_, nice)| *nice).collect::<Vec<_>>();
        // Two threads of the runtime, and those that do for it what may wait, if there are any yet.
        let control = of("control ");
        let asked = of("worker-") == [own, own] && of("penstock ") == [back] && control.iter().all(|nice| *nice == back);
        (asked && control.len() >= 2).then_some(())
    });
}
