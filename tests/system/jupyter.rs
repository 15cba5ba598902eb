//! A real application that lives on WebSockets, in a real browser, over TLS: a terminal of Jupyter.
//!
//! What is typed in the page goes to a shell on the page's WebSocket, and what the shell prints comes back on it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::{
    browser::{Browser, Socket},
    support::{Penstock, eventually, free_port, https_request, own_address, served_certificate, write},
};

/// In the URL of a terminal's WebSocket.
const TERMINAL: &str = "/terminals/websocket/";
const EDITS: usize = 100;
const OWN_EDITS: usize = 20;

/// The script of Jupyter's terminal page, as Debian's python3-notebook has it.
const PAGE_SCRIPT: &str = "/usr/lib/python3/dist-packages/notebook/static/terminal/js/main.min.js";
/// The terminal emulator as modules for Node.js: Debian's node-xterm.
const XTERM: &str = "/usr/share/nodejs/xterm/lib";
/// Its addon that fits the terminal to the page: Debian's libjs-xterm.
const XTERM_FIT: &str = "/usr/share/javascript/xterm/addons/fit/fit.js";

/// Gives the modules a `require` of their own, and the page what it asks for by name.
const LOADER: &str = "
const made = {};
function load(name) {
    if (made[name]) return made[name].exports;
    const module = made[name] = {exports: {}};
    modules[name](to => {
        const path = name.split('/').slice(0, -1);
        for (const part of to.split('/')) {
            if (part === '..') path.pop(); else if (part !== '.') path.push(part);
        }
        return load(path.join('/'));
    }, module, module.exports);
    return module.exports;
}
define('xterm', [], () => load('public/Terminal').Terminal);
define('xtermjs-fit', [], () => load('addons/fit/fit'));
})();
";

/// The script of the terminal's page, made whole.
///
/// Debian 12 builds the page from `/usr/share/javascript/xterm/xterm.js`, which is no more than the entry of a Node.js package: it calls
/// `require`, which no browser has, so the page ends with `exports is not defined` before it opens its WebSocket (jupyter-notebook 6.4.12,
/// libjs-xterm 3.8.1). The package node-xterm holds the modules that it would have required. They take the entry's place; the page's own
/// code, which opens the WebSocket and talks on it, stays as it is.
fn page_script() -> String {
    let text = |path: &Path| {
        let text = fs::read_to_string(path);
        text.unwrap_or_else(|error| panic!("{}: {error}; it is of Debian's jupyter-notebook or node-xterm", path.display()))
    };
    let mut modules = BTreeMap::from([("addons/fit/fit".to_owned(), text(Path::new(XTERM_FIT)))]);
    let mut folders = vec![Path::new(XTERM).to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}; it is of node-xterm", folder.display())) {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(XTERM).unwrap().to_str().unwrap();
            if path.is_dir() {
                folders.push(path);
            } else if let Some(name) = name.strip_suffix(".js").filter(|_| !name.contains(".test.")) {
                modules.insert(name.to_owned(), text(&path));
            }
        }
    }
    let mut table = "(function () {\nconst modules = {\n".to_owned();
    for (name, source) in modules {
        // On lines of its own: a source may end with a comment.
        let _ = write!(table, "\"{name}\": function (require, module, exports) {{\n{source}\n}},\n");
    }
    let page = text(Path::new(PAGE_SCRIPT));
    let (before, rest) = page
        .split_once("(function (factory) {\n\ttypeof define === 'function' && define.amd ? define('xterm'")
        .expect("the page defines xterm");
    let after = rest.find("define ('terminal/js/terminado'").expect("the page defines its own code after xterm");
    format!("{before}{table}}};{LOADER}{}", &rest[after..])
}

/// A running Jupyter server that asks for no password; ended when dropped.
struct Jupyter {
    process: Child,
    url: String,
    _home: tempfile::TempDir,
}

impl Jupyter {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        // Not on loopback: there it would refuse names other than localhost.
        let (address, port) = (own_address(), free_port());
        let script = home.path().join("static/terminal/js/main.min.js");
        fs::create_dir_all(script.parent().unwrap()).unwrap();
        fs::write(script, page_script()).unwrap();
        let log = fs::File::create(home.path().join("log")).unwrap();
        let mut process = Command::new("/usr/bin/jupyter-notebook")
            .args([
                "--no-browser",
                "--allow-root",
                "--NotebookApp.token=",
                "--NotebookApp.password=",
                "--NotebookApp.port_retries=0",
            ])
            .args([format!("--ip={address}"), format!("--port={port}"), format!("--notebook-dir={}", home.path().display())])
            .arg(format!("--NotebookApp.extra_static_paths={}", home.path().join("static").display()))
            .env("HOME", home.path())
            // The plainest prompt.
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("jupyter-notebook runs (Debian's package jupyter-notebook)");
        eventually("Jupyter listens", || {
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none(), "{}", fs::read_to_string(home.path().join("log")).unwrap());
            TcpStream::connect((address, port)).ok()
        });
        Self { process, url: format!("http://{address}:{port}"), _home: home }
    }
}

impl Drop for Jupyter {
    fn drop(&mut self) {
        // Asked kindly, it ends its shells too.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

/// A terminal in a page; the one WebSocket that it was opened with has to last.
struct Terminal {
    browser: Browser,
    socket: String,
    commands: u32,
}

impl Terminal {
    fn open(penstock: &Penstock) -> Self {
        let mut browser = Browser::start();
        let url = format!("https://nb.test:{}", penstock.https.port());
        browser.open(&format!("{url}/terminals/new"));
        let socket = browser.until("the page opens its WebSocket and the shell prompts", |sockets| {
            let open = sockets.iter().find(|(_, socket)| socket.url.contains(TERMINAL));
            open.filter(|(_, socket)| !printed(socket).is_empty()).map(|(name, _)| name.clone())
        });
        let mut terminal = Self { browser, socket, commands: 0 };
        terminal.command(penstock);
        terminal
    }

    /// Types a command; its answer must come on the first WebSocket, and no socket may have closed.
    fn command(&mut self, penstock: &Penstock) {
        self.commands += 1;
        let browser = &mut self.browser;
        browser.evaluate("terminal.term.focus()");
        // The shell's echo of what is typed is not yet the answer.
        browser.type_keys(&format!("echo answer $((1000 + {}))\r", self.commands));
        let (socket, expected) = (self.socket.clone(), format!("answer {}", 1000 + self.commands));
        browser.until("the command answers", |sockets| {
            if sockets[&socket].closed {
                let metrics = penstock.ask_admin("/metrics").1;
                let ends: Vec<_> = metrics.lines().filter(|line| line.starts_with("penstock_tunnels_ended_total")).collect();
                panic!("the page's WebSocket was closed: {:#?}\nof penstock's tunnels there ended {ends:#?}", sockets[&socket]);
            }
            printed(&sockets[&socket]).contains(&expected).then_some(())
        });
        browser.catch_up();
        let closed: Vec<_> = browser.sockets.values().filter(|socket| socket.closed).collect();
        assert!(closed.is_empty(), "closed: {closed:#?}");
        let opened = browser.sockets.values().filter(|socket| socket.url.contains(TERMINAL)).count();
        assert_eq!(opened, 1, "the page had to open another");
    }
}

/// What the shell printed: each message is a list of its kind and its text.
fn printed(socket: &Socket) -> String {
    let messages = serde_json::Deserializer::from_str(&socket.received).into_iter::<Value>().map_while(Result::ok);
    let texts = messages.filter(|message| message[0] == "stdout");
    texts.filter_map(|message| message[1].as_str().map(ToOwned::to_owned)).collect()
}

fn certificate(folder: &Path) -> Vec<u8> {
    let made = rcgen::generate_simple_self_signed(vec!["nb.test".to_owned()]).unwrap();
    // The key and the chain are two files, so they do not fit each other for a moment: what was served goes on.
    write(&folder.join("tls.key"), &made.signing_key.serialize_pem());
    write(&folder.join("tls.crt"), &made.cert.pem());
    made.cert.der().to_vec()
}

#[test]
fn a_terminal_in_a_browser_stays_while_its_certificate_is_renewed() {
    let jupyter = Jupyter::start();
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (cert, key) = (file("tls.crt"), file("tls.key"));
    let penstock = Penstock::start(&["proxy", "--from", "nb.test", "--to", &jupyter.url, "--cert", &cert, "--key", &key]);
    let mut terminal = Terminal::open(&penstock);
    for _ in 0..OWN_EDITS {
        let renewed = certificate(folder.path());
        eventually("the renewed certificate is served", || {
            (served_certificate(penstock.https, "nb.test") == renewed).then_some(())
        });
    }
    terminal.command(&penstock);
}

#[test]
fn a_terminal_in_a_browser_stays_through_a_hundred_edits() {
    let jupyter = Jupyter::start();
    let folder = tempfile::tempdir().unwrap();
    let own = |version: usize| {
        format!(
            "apiVersion: penstock.dev/v1alpha1\nkind: ProxyRoute\nmetadata: {{name: terminal}}\nspec:\n  hosts: [nb.test]\n  tls: {{selfSigned: true}}\n  rules:\n  - matches: [{{path: {{type: Exact, value: /version}}}}]\n    respond: {{code: 200, body: \"{version}\"}}\n  - backends: [{{url: \"{}\"}}]\n    timeouts: {{connect: {}s}}\n",
            jupyter.url,
            1 + version
        )
    };
    let other = |version: usize| {
        let mut text = String::new();
        for name in ["one", "two"] {
            let _ = write!(
                text,
                "---\napiVersion: penstock.dev/v1alpha1\nkind: ProxyRoute\nmetadata: {{name: {name}}}\nspec: {{hosts: [{name}.test], rules: [{{respond: {{code: 200, body: \"{version}\"}}}}]}}\n"
            );
        }
        text
    };
    let (own_file, other_file) = (folder.path().join("own.yaml"), folder.path().join("other.yaml"));
    write(&own_file, &own(0));
    write(&other_file, &other(0));
    let penstock = Penstock::start(&["serve", folder.path().to_str().unwrap()]);
    let mut terminal = Terminal::open(&penstock);
    for edit in 1..=EDITS {
        let host = if edit % (EDITS / OWN_EDITS) == 0 {
            write(&own_file, &own(edit));
            "nb.test"
        } else {
            write(&other_file, &other(edit));
            "two.test"
        };
        eventually("the edit is live", || {
            (https_request(penstock.https, host, "/version") == (200, edit.to_string())).then_some(())
        });
        if edit % 25 == 0 {
            terminal.command(&penstock);
        }
    }
}
