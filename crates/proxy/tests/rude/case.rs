//! What a case is.

/// What the backend does when a request of the case is there.
#[derive(Clone, Debug)]
pub enum Step {
    Say(Vec<u8>),
    /// Says this again and again, for as long as somebody takes it.
    Flood(Vec<u8>),
    /// Waits until the client has something of it.
    Begun,
    /// Waits until the client has all that it is to get.
    Await,
    /// Ends its side.
    Close,
    Reset,
    /// Switches to WebSocket, with the Accept that the last key asks for (RFC 6455 §4.2.2).
    Switch,
    /// Gives back what comes, until it ends.
    Echo,
}

/// When it begins to: with the whole request, or with its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Request,
    Head,
}

/// What the client does when it has sent what it has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Reads,
    /// Ends its side, and reads on.
    Ends,
    /// Is gone once its request is under way.
    Leaves,
    /// Says this too, once something of an answer is there.
    Adds(&'static [u8]),
    /// Says this again and again, for as long as it is taken.
    Floods(&'static [u8]),
}

#[derive(Debug)]
pub struct Case {
    /// What must hold.
    pub name: String,
    /// Where that comes from: a section, or a fault that others had.
    pub source: &'static str,
    pub sends: Vec<u8>,
    pub then: Then,
    /// Empty: 200, with the target as its body.
    pub says: Vec<Step>,
    pub when: When,
    /// What the client gets, message by message, and then what becomes of its connection: it `stays`, `closes` (after whole messages), is
    /// `cut` within one, or `reset` (by TCP, so that nobody takes the end of the connection for that of the body), or is a `tunnel` through which this
    /// comes.
    pub gets: String,
    /// What the backend gets, message by message.
    pub passes: String,
    /// Although all went as it should, the connection to the backend is not used on.
    pub in_doubt: bool,
    /// It would be another case if what either side sends came in pieces.
    pub in_one: bool,
}

/// A case of a client: the backend answers as it should.
pub fn case(
    name: impl Into<String>,
    source: &'static str,
    sends: impl Into<Vec<u8>>,
    gets: impl Into<String>,
    passes: impl Into<String>,
) -> Case {
    let (name, gets, passes) = (name.into(), gets.into(), passes.into());
    Case {
        name,
        source,
        sends: sends.into(),
        then: Then::Reads,
        says: Vec::new(),
        when: When::Request,
        gets,
        passes,
        in_doubt: false,
        in_one: false,
    }
}

impl Case {
    pub fn then(self, then: Then) -> Self {
        Self { then, ..self }
    }

    pub fn says(self, says: Vec<Step>) -> Self {
        Self { says, ..self }
    }

    pub fn in_doubt(self) -> Self {
        Self { in_doubt: true, ..self }
    }

    pub fn in_one(self) -> Self {
        Self { in_one: true, ..self }
    }

    /// Whether the connection to the backend is used on: all that came over it was whole, and nothing is left.
    pub fn keeps(&self) -> bool {
        let broke = ["502", "cut", "reset", "tunnel"].iter().any(|word| self.gets.contains(word) || self.passes.contains(word));
        let ends = |step: &Step| matches!(step, Step::Close | Step::Reset | Step::Flood(_));
        !(self.in_doubt || broke || self.says.iter().any(ends))
    }

    pub fn when(self, when: When) -> Self {
        Self { when, ..self }
    }
}

pub fn say(bytes: impl Into<Vec<u8>>) -> Step {
    Step::Say(bytes.into())
}
