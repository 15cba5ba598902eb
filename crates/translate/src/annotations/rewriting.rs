//! Paths that are regular expressions, and what becomes of the path on its way to the backend.

use super::{Annotation, Bad, BadValue, Item, Scope, Spelling, values};

/// What ingress-nginx allows in `rewrite-target` and `app-root`.
const CAPTURE: &str = "-._~/:$";

pub(crate) static REWRITE_TARGET: Item<Box<str>> = Item {
    about: Annotation {
        name: "rewrite-target",
        aliases: &[],
        spelling: Spelling::Both,
        value: "a path, in which `$1` to `$9` stand for the groups of the Ingress path",
        default_native: "the path is not rewritten",
        default_ingress_nginx: "the path is not rewritten",
        scope: Scope::Host,
        bad_value: BadValue::Default,
        doc: "The backend gets this path instead of the request's own. The Ingress path is taken as a regular expression, and its groups can \
              be named; what is not in a group is dropped. The query is kept. Typical: path `/api(/|$)(.*)` of type ImplementationSpecific with \
              `/$2`.",
        difference: "a target that begins with a scheme becomes a redirect; here it is refused. Look-around and back-references, which cannot \
                     be matched in linear time, are refused by name: see `use-regex` for what becomes of the path.",
    },
    parse: |text| {
        let target = values::text_of(text, CAPTURE)?;
        if target.starts_with(['/', '$']) { Ok(target) } else { Err(Bad::Form("a path that begins with / or a group".to_owned())) }
    },
};

pub(crate) static USE_REGEX: Item<bool> = Item {
    about: Annotation {
        name: "use-regex",
        aliases: &[],
        spelling: Spelling::Both,
        value: "`true` or `false`",
        default_native: "`false`",
        default_ingress_nginx: "`false`",
        scope: Scope::Host,
        bad_value: BadValue::Default,
        doc: "Paths are regular expressions, held against the request's path from its start. Native: those of type ImplementationSpecific, and \
              case counts. ingress-nginx profile: every Ingress path of the host, and case does not count; the longest pattern is tried first.",
        difference: "a pattern that is no regular expression stops every change for everybody. Here only that path is left out, or, if the \
                     Ingress keeps clients out (`allowlist-source-range`), all that begins like it is answered 503. A bare `|` binds as in \
                     nginx in that profile: only its first part is held against the start of the path.",
    },
    parse: values::boolean,
};

pub(crate) static APP_ROOT: Item<Box<str>> = Item {
    about: Annotation {
        name: "app-root",
        aliases: &[],
        spelling: Spelling::Both,
        value: "a path that begins with `/`",
        default_native: "none",
        default_ingress_nginx: "none",
        scope: Scope::Host,
        bad_value: BadValue::Default,
        doc: "A request for exactly `/` is answered with 302 to this path, whether or not the Ingress has a path `/`.",
        difference: "",
    },
    parse: |text| {
        let path = values::text_of(text, CAPTURE)?;
        // `//x` leads nowhere else: scheme and host of the request are written before it.
        if path.starts_with('/') && !path.contains('$') { Ok(path) } else { Err(Bad::Form("a path that begins with /".to_owned())) }
    },
};
