//! How far a group comes back where its chain of rounds is broken.
//!
//! All that rounds say builds on those before them, so that a link without which the chain does not
//! reach back makes every round behind it useless. The chain then ends before that link: with the
//! newest whole round that is named lower and from which a chain leads all the way back. Everything
//! that is given up by that is told; whether it may be is not decided here.

use common::{GroupId, Incarnation, LogIndex};
use lts::ObjectName;

use super::beginning::Begun;
use super::{Chain, Listing, RestoreFailure, list};
use crate::archive::Footer;
use crate::tiering::Storage;

/// A group as far as its bucket leads.
#[derive(Debug)]
pub struct Salvaged {
    /// `None` where nothing of it can be brought back.
    pub chain: Option<Chain>,
    /// Because of what it ends before the last entry that was archived; empty where it does not.
    pub losses: Vec<Loss>,
}

/// Something that keeps a group from coming back as far as it was archived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Which object is missing or damaged.
    pub what: String,
    /// The last entry that only that object had, where a round that can be read tells.
    pub unreadable_to: Option<LogIndex>,
    /// The last entry that was archived, as far as rounds that can be read tell; those behind
    /// `unreadable_to` are of no use without what is before them.
    pub archived_to: Option<LogIndex>,
}

impl Loss {
    /// Something that does not say which entries it was about.
    pub(super) fn of(what: String) -> Self {
        Self { what, unreadable_to: None, archived_to: None }
    }
}

/// A look for a chain among the objects of a group.
struct Search<'a> {
    storage: &'a Storage,
    listing: Listing,
    from: Option<LogIndex>,
    /// Where the log of the node begins that has one.
    begins: Option<LogIndex>,
}

/// What came of a walk.
enum Walked {
    Found(Found),
    /// Behind lost entries, and not as far as the checkpoint there: as if it had not begun.
    Unreached {
        losses: Vec<Loss>,
        begins: ObjectName,
    },
}

/// What came of one tip.
enum Found {
    Whole(Box<Chain>),
    /// It leads back to a link that is broken; rounds named below `give_up` may lead further.
    Broken {
        losses: Vec<Loss>,
        give_up: ObjectName,
    },
    /// There is no round.
    Nothing {
        losses: Vec<Loss>,
    },
}

impl Chain {
    /// Finds what leads from a state that includes the log up to `from` to the tip; from nothing,
    /// the checkpoint too.
    pub fn find(
        storage: &Storage,
        group: GroupId,
        from: Option<LogIndex>,
    ) -> Result<Self, RestoreFailure> {
        match Search::new(storage, group, from, None)?.below(None)? {
            Found::Whole(chain) => Ok(*chain),
            // Objects of an upload that was not finished are nothing. What cannot be read may have
            // been all there was.
            Found::Nothing { losses } if losses.is_empty() => Err(RestoreFailure::Nothing),
            Found::Nothing { losses } | Found::Broken { losses, .. } => Err(broken(&losses)),
        }
    }

    /// The same for a node whose log goes on behind `to`, so that only what leads there matters. Of
    /// incarnations before its own only a round that ends just there is taken for the tip: the node
    /// was made from one. Another may have arrived since, and what it tells of is not what came to
    /// pass in this log.
    pub(crate) fn leading_to(
        storage: &Storage,
        group: GroupId,
        from: Option<LogIndex>,
        to: LogIndex,
    ) -> Result<Self, RestoreFailure> {
        let search = Search::new(storage, group, from, Some(to))?;
        let mut first = None;
        let mut below = None;
        loop {
            match search.below(below)? {
                Found::Whole(chain) if first.is_none() || chain.end().0 >= to => return Ok(*chain),
                Found::Nothing { losses } if first.is_none() && losses.is_empty() => {
                    return Err(RestoreFailure::Nothing);
                }
                Found::Broken { losses, give_up } => {
                    first.get_or_insert_with(|| broken(&losses));
                    below = Some(give_up);
                }
                Found::Nothing { losses } => return Err(first.unwrap_or_else(|| broken(&losses))),
                Found::Whole(_) => return Err(first.expect("a whole one comes first otherwise")),
            }
        }
    }

    /// Finds what can be brought back from nothing, and tells what cannot.
    pub fn salvage(storage: &Storage, group: GroupId) -> Result<Salvaged, RestoreFailure> {
        let search = Search::new(storage, group, None, None)?;
        let mut all = Vec::new();
        let mut below = None;
        let chain = loop {
            match search.below(below)? {
                Found::Whole(mut chain) => {
                    all.append(&mut chain.losses);
                    break Some(*chain);
                }
                Found::Broken { losses, give_up } => {
                    all.extend(losses);
                    below = Some(give_up);
                }
                Found::Nothing { losses } => {
                    all.extend(losses);
                    break None;
                }
            }
        };
        match (chain, all) {
            (None, losses) if losses.is_empty() => Err(RestoreFailure::Nothing),
            (chain, losses) => Ok(Salvaged { chain, losses }),
        }
    }
}

impl<'a> Search<'a> {
    fn new(
        storage: &'a Storage,
        group: GroupId,
        from: Option<LogIndex>,
        begins: Option<LogIndex>,
    ) -> Result<Self, RestoreFailure> {
        Ok(Self { storage, listing: list(storage, group)?, from, begins })
    }

    /// Whether a node with a log may take the round for its tip.
    fn suits(&self, tip: &Footer) -> bool {
        let own = self.storage.marker().map_or(Incarnation(0), |marker| marker.incarnation);
        let begins = |begins| tip.reference.name.incarnation >= own || tip.last_index() == begins;
        self.begins.is_none_or(begins)
    }

    /// The newest chain whose tip is named lower than `below`, from where it begins.
    fn below(&self, mut below: Option<ObjectName>) -> Result<Found, RestoreFailure> {
        let mut losses = Vec::new();
        loop {
            match self.walk(below)? {
                Walked::Found(found) => return Ok(found.with_newer(losses)),
                Walked::Unreached { losses: more, begins } => {
                    losses.extend(more);
                    below = Some(begins);
                }
            }
        }
    }

    /// Walks back from the newest tip that is named lower than `below`.
    fn walk(&self, below: Option<ObjectName>) -> Result<Walked, RestoreFailure> {
        let Self { storage, listing, from, .. } = self;
        let suits = |tip: &Footer| self.suits(tip);
        let mut chain = Chain {
            checkpoint: None,
            footers: Vec::new(),
            problems: Vec::new(),
            losses: Vec::new(),
        };
        let tip = match below {
            Some(below) => chain.find_tip(storage, listing, listing.range(..below), suits),
            None => chain.find_tip(storage, listing, listing.iter(), suits),
        };
        let Some(tip) = tip? else {
            return Ok(Walked::Found(Found::Nothing { losses: chain.losses }));
        };
        chain.footers.push(tip);
        while !chain.is_complete(*from) {
            if from.is_none() && chain.checkpoint.is_none() {
                chain.find_checkpoint(storage, listing)?;
                if chain.is_complete(*from) {
                    break;
                }
            }
            let back = match chain.begins_anew() {
                Some(beginning) if from.is_none() => chain.begin(beginning, storage, listing),
                _ => chain.walk_back(storage, listing).map(|()| Begun::Yes),
            };
            match back {
                Ok(Begun::Yes) => {}
                Ok(Begun::Unreached(what)) => return Ok(chain.unreached(what)),
                Err(RestoreFailure::Broken(why)) if chain.does_without_earlier() => {
                    chain.problems.push(why);
                    break;
                }
                Err(RestoreFailure::Broken(why)) => {
                    return Ok(Walked::Found(chain.broken_off(why)));
                }
                Err(other) => return Err(other),
            }
        }
        chain.footers.reverse();
        Ok(Walked::Found(Found::Whole(Box::new(chain))))
    }
}

impl Found {
    /// Behind what was of no use.
    fn with_newer(mut self, newer: Vec<Loss>) -> Self {
        let losses = match &mut self {
            Self::Whole(chain) => &mut chain.losses,
            Self::Broken { losses, .. } | Self::Nothing { losses } => losses,
        };
        losses.splice(..0, newer);
        self
    }
}

impl Chain {
    /// The walk back from the tip came to a beginning whose checkpoint is behind the tip.
    fn unreached(mut self, what: String) -> Walked {
        let begins = self.footers.last().expect("the tip was pushed").reference.name;
        let archived_to = Some(self.footers[0].last_index());
        self.losses.push(Loss { what, unreadable_to: archived_to, archived_to });
        Walked::Unreached { losses: self.losses, begins }
    }

    /// The walk back from the tip came to a link that is broken.
    fn broken_off(mut self, what: String) -> Found {
        let oldest = self.footers.last().expect("the tip was pushed");
        let first = *oldest.range().start();
        // What a damaged link names may be anything: the search only ever goes down.
        // Behind lost entries it is not the round before that is to blame.
        let link = oldest.continues.filter(|_| oldest.begins.is_none());
        let link = link.map(|previous| previous.name);
        let give_up = link.map_or(oldest.reference.name, |link| link.min(oldest.reference.name));
        let archived_to = self.footers[0].last_index();
        self.losses.push(Loss {
            what,
            unreadable_to: Some(LogIndex(first.0 - 1)),
            archived_to: Some(archived_to),
        });
        // Without an older checkpoint the chain has to go further back than it does.
        self.losses.extend(self.problems.drain(..).map(Loss::of));
        Found::Broken { losses: self.losses, give_up }
    }
}

/// All of it as one failure.
fn broken(losses: &[Loss]) -> RestoreFailure {
    let all: Vec<&str> = losses.iter().map(|loss| loss.what.as_str()).collect();
    RestoreFailure::Broken(all.join("; "))
}
