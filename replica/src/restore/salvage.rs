//! How far a group comes back where its chain of rounds is broken.
//!
//! All that rounds say builds on those before them, so that a link without which the chain does not
//! reach back makes every round behind it useless. The chain then ends before that link: with the
//! newest whole round that is named lower and from which a chain leads all the way back. Everything
//! that is given up by that is told; whether it may be is not decided here.

use common::{GroupId, Incarnation, LogIndex};
use lts::ObjectName;

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

    /// Walks back from the newest tip that is named lower than `below`.
    fn below(&self, below: Option<ObjectName>) -> Result<Found, RestoreFailure> {
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
        let Some(tip) = tip? else { return Ok(Found::Nothing { losses: chain.losses }) };
        chain.footers.push(tip);
        while !chain.is_complete(*from) {
            if from.is_none() && chain.checkpoint.is_none() {
                chain.find_checkpoint(storage, listing)?;
                if chain.is_complete(*from) {
                    break;
                }
            }
            match chain.walk_back(storage, listing) {
                Ok(()) => {}
                Err(RestoreFailure::Broken(why)) if chain.does_without_earlier() => {
                    chain.problems.push(why);
                    break;
                }
                Err(RestoreFailure::Broken(why)) => return Ok(chain.broken_off(why)),
                Err(other) => return Err(other),
            }
        }
        chain.footers.reverse();
        Ok(Found::Whole(Box::new(chain)))
    }
}

impl Chain {
    /// The walk back from the tip came to a link that is broken.
    fn broken_off(mut self, what: String) -> Found {
        let oldest = self.footers.last().expect("the tip was pushed");
        let first = *oldest.range().start();
        // What a damaged link names may be anything: the search only ever goes down.
        let link = oldest.continues.map(|previous| previous.name);
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
