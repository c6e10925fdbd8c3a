//! The rules of the protocol.

/// What makes a removal final. Each can be left out, to see that it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Memory is served only while the fence is open.
    Fence,
    /// A lease counts from when its renewal was sent.
    LeaseFromSending,
    /// A lease counts only once the key is stored under it.
    LeaseWithKey,
    /// Words keep a node on the list only if more than half of all members back it.
    Majority,
    /// Members that are excluded by those that give their word don't count.
    ExcludedByGivers,
    /// Nor does whom the asker promised not to vouch for.
    ExcludedByAsker,
    /// A word counts from the question.
    WordFromAsking,
    /// A promise not to vouch is kept.
    Promises,
    /// An expulsion takes promises of half of all members.
    Half,
    /// It waits until the words given before have run out.
    PromiseWait,
    /// It takes etcd's word that the lease has ended.
    LeaseEnded,
    /// It fails if the record has changed.
    RecordUnchanged,
    /// A member that vanished stays known by its record.
    Record,
    /// A member that vanished has to confirm a removal, too.
    TellVanished,
    /// A joining node keeps nothing until all others have seen it.
    SeenByAll,
    /// An expelled member drops everything before it joins again.
    DropAll,
    /// A member that joins again is another one, which has confirmed nothing.
    Incarnation,
    /// A removal is coordinated only inside the fence.
    CoordinatorFence,
    /// It is acknowledged within its bound or not at all.
    Deadline,
    /// A key that was removed is taken from no other member for a while.
    Tombstone,
    /// What was under way for long is not kept.
    TransferTimeout,
    /// Nor is what was sent before the receiver's fence opened.
    FenceSinceSending,
    /// A flight keeps nothing if the fence was not open all the time.
    Pass,
    /// A removal grounds the flights under way.
    Grounding,
    /// Other members' memory is read only inside their fences.
    SenderFence,
    /// Under a tombstone, and outside the fence, a get shares no flight that is under way.
    NextFlight,
    /// Nor one that is old.
    YoungFlight,
    /// No node joins in a history that is younger than a lease: etcd may have lost its data.
    YoungHistory,
    /// A member that registers again in it goes on only if its lease would still be alive.
    ResumedInTime,
    /// Whom it doesn't know stays on the lists for a while.
    Held,
    /// But nobody gives it a word.
    NoWordForHeld,
    /// And its words don't count.
    NoWordFromHeld,
    /// All this until the words that were given in the lease's time have run out.
    DoubtOutlastsWords,
    /// Who stands in etcd otherwise than it sees gives no word.
    GiverSeesItself,
    /// Nor does it rely on its lease or on words.
    AskerSeesItself,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 35] = [
        Self::Fence,
        Self::LeaseFromSending,
        Self::LeaseWithKey,
        Self::Majority,
        Self::ExcludedByGivers,
        Self::ExcludedByAsker,
        Self::WordFromAsking,
        Self::Promises,
        Self::Half,
        Self::PromiseWait,
        Self::LeaseEnded,
        Self::RecordUnchanged,
        Self::Record,
        Self::TellVanished,
        Self::SeenByAll,
        Self::DropAll,
        Self::Incarnation,
        Self::CoordinatorFence,
        Self::Deadline,
        Self::Tombstone,
        Self::TransferTimeout,
        Self::FenceSinceSending,
        Self::Pass,
        Self::Grounding,
        Self::SenderFence,
        Self::NextFlight,
        Self::YoungFlight,
        Self::YoungHistory,
        Self::ResumedInTime,
        Self::Held,
        Self::NoWordForHeld,
        Self::NoWordFromHeld,
        Self::DoubtOutlastsWords,
        Self::GiverSeesItself,
        Self::AskerSeesItself,
    ];
}
