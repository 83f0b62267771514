//! Cases by hand, and every order of events a generator thinks of, against a naive model.

use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_assert_eq, proptest};
use proptest::test_runner::TestCaseError;

use crate::{Direction, Entry, Inconsistent, InvalidPlan, Next, Plan, State, StepPlan};

use Direction::{Backward, Forward};
use State::{Done, Open, Refused};

fn entry<S>(step: S, state: State) -> Entry<S> {
    Entry { step, state }
}

/// a (undo A), b (undo B), c, the pivot p, z.
fn plan() -> Plan<char> {
    Plan::try_new(vec![
        StepPlan::new('a').undone_by('A'),
        StepPlan::new('b').undone_by('B'),
        StepPlan::new('c'),
        StepPlan::pivot('p'),
        StepPlan::new('z'),
    ])
    .unwrap()
}

fn next(log: &[(char, State)], wish: Direction) -> Result<Next<char>, Inconsistent<char>> {
    let log: Vec<_> = log.iter().map(|(step, state)| entry(*step, *state)).collect();
    plan().next(&log, wish)
}

#[test]
fn steps_run_one_after_the_other() {
    assert_eq!(next(&[], Forward), Ok(Next::Run('a')));
    assert_eq!(next(&[('a', Open)], Forward), Ok(Next::Wait('a')));
    assert_eq!(next(&[('a', Done)], Forward), Ok(Next::Run('b')));
    assert_eq!(next(&[('a', Done), ('b', Done), ('c', Done), ('p', Done)], Forward), Ok(Next::Run('z')));
    let all = [('a', Done), ('b', Done), ('c', Done), ('p', Done), ('z', Done)];
    assert_eq!(next(&all, Forward), Ok(Next::Finished));
}

#[test]
fn a_refusal_turns_around_whatever_the_wish_and_what_was_refused_is_not_undone() {
    for wish in [Forward, Backward] {
        assert_eq!(next(&[('a', Refused)], wish), Ok(Next::Failed));
        assert_eq!(next(&[('a', Done), ('b', Refused)], wish), Ok(Next::Run('A')));
        assert_eq!(next(&[('a', Done), ('b', Refused), ('A', Open)], wish), Ok(Next::Wait('A')));
        assert_eq!(next(&[('a', Done), ('b', Refused), ('A', Done)], wish), Ok(Next::Failed));
    }
}

#[test]
fn giving_up_before_anything_began_has_failed_already() {
    assert_eq!(next(&[], Backward), Ok(Next::Failed));
}

#[test]
fn an_unknown_outcome_is_undone_and_undos_do_not_wait_for_each_other() {
    assert_eq!(next(&[('a', Done), ('b', Open)], Backward), Ok(Next::Run('B')));
    assert_eq!(next(&[('a', Done), ('b', Open), ('B', Open)], Backward), Ok(Next::Run('A')));
    assert_eq!(next(&[('a', Done), ('b', Open), ('B', Open), ('A', Done)], Backward), Ok(Next::Wait('B')));
}

#[test]
fn an_undo_that_was_begun_is_waited_for_even_when_its_step_turns_out_refused() {
    let log = [('a', Done), ('b', Refused), ('B', Open), ('A', Done)];
    assert_eq!(next(&log, Backward), Ok(Next::Wait('B')));
}

#[test]
fn after_the_first_undo_there_is_no_way_forward() {
    assert_eq!(next(&[('a', Done), ('b', Done), ('B', Open)], Forward), Ok(Next::Run('A')));
}

#[test]
fn the_pivot_decides_when_it_is_begun_unless_it_is_refused() {
    let with_pivot = |state| [('a', Done), ('b', Done), ('c', Done), ('p', state)];
    assert_eq!(next(&with_pivot(Open), Backward), Err(Inconsistent::PastPivot('p')));
    assert_eq!(next(&with_pivot(Done), Backward), Err(Inconsistent::PastPivot('p')));
    assert_eq!(next(&with_pivot(Open), Forward), Ok(Next::Wait('p')));
    assert_eq!(next(&with_pivot(Refused), Forward), Ok(Next::Run('B')));
}

#[test]
fn a_log_that_cannot_be_is_named() {
    assert_eq!(next(&[('x', Done)], Forward), Err(Inconsistent::Unknown('x')));
    assert_eq!(next(&[('a', Done), ('a', Open)], Forward), Err(Inconsistent::Twice('a')));
    assert_eq!(next(&[('a', Open), ('b', Open)], Forward), Err(Inconsistent::OutOfOrder('b')));
    assert_eq!(next(&[('b', Done)], Forward), Err(Inconsistent::OutOfOrder('b')));
    assert_eq!(next(&[('a', Done), ('A', Refused)], Forward), Err(Inconsistent::RefusedUndo('A')));
    let log = [('a', Done), ('b', Done), ('c', Done), ('p', Done), ('z', Refused)];
    assert_eq!(next(&log, Forward), Err(Inconsistent::RefusedBehindPivot('z')));
    let log = [('a', Done), ('b', Done), ('c', Done), ('p', Done), ('A', Open)];
    assert_eq!(next(&log, Forward), Err(Inconsistent::PastPivot('p')));
}

#[test]
fn a_plan_that_cannot_be_followed_is_refused() {
    let step = StepPlan::new;
    assert_eq!(Plan::<char>::try_new(vec![]), Err(InvalidPlan::NotOnePivot));
    assert_eq!(Plan::try_new(vec![step('a')]), Err(InvalidPlan::NotOnePivot));
    assert_eq!(
        Plan::try_new(vec![StepPlan::pivot('a'), StepPlan::pivot('b')]),
        Err(InvalidPlan::NotOnePivot)
    );
    assert_eq!(Plan::try_new(vec![step('a'), step('a'), StepPlan::pivot('p')]), Err(InvalidPlan::Twice('a')));
    assert_eq!(
        Plan::try_new(vec![step('a').undone_by('p'), StepPlan::pivot('p')]),
        Err(InvalidPlan::Twice('p'))
    );
    assert_eq!(
        Plan::try_new(vec![StepPlan::pivot('p').undone_by('P')]),
        Err(InvalidPlan::UndoBehindPivot('P'))
    );
}

/// Step `n` of a generated plan, or its undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Step(usize),
    Undo(usize),
}

#[derive(Clone, Debug)]
struct Shape {
    /// Which of the steps in front of the pivot have an undo.
    undos: Vec<bool>,
    behind_pivot: usize,
}

impl Shape {
    fn pivot(&self) -> usize {
        self.undos.len()
    }

    fn len(&self) -> usize {
        self.pivot() + 1 + self.behind_pivot
    }

    fn has_undo(&self, step: usize) -> bool {
        self.undos.get(step).copied().unwrap_or(false)
    }

    fn plan(&self) -> Plan<Name> {
        let step = |n| StepPlan {
            step: Name::Step(n),
            undo: self.has_undo(n).then_some(Name::Undo(n)),
            pivot: n == self.pivot(),
        };
        Plan::try_new((0..self.len()).map(step).collect()).unwrap()
    }
}

/// The saga as one would first write it: two stacks and a flag, changed by what happens, without a look at any log.
#[derive(Debug, Default)]
struct Model {
    begun: usize,
    /// The outcome of the step that was begun last.
    last: Option<State>,
    turned: bool,
    /// Undos to begin, the next one at the end; filled when the saga turns around.
    due: Vec<usize>,
    /// Undos that were begun, in that order, and are not done.
    open: Vec<usize>,
}

impl Model {
    fn turn(&mut self, shape: &Shape) {
        if !self.turned {
            self.turned = true;
            let refused = self.last == Some(Refused);
            let begun_and_not_refused = self.begun - usize::from(refused);
            self.due = (0..begun_and_not_refused).filter(|step| shape.has_undo(*step)).collect();
        }
    }

    /// The step in front of which the model stands was answered.
    fn settle_step(&mut self, shape: &Shape, state: State) {
        self.last = Some(state);
        if state == Refused {
            // An undo that was not begun yet is no longer needed; one that was has to end.
            let step = self.begun - 1;
            self.due.retain(|due| *due != step);
            self.turn(shape);
        }
    }

    fn may_turn(&self, shape: &Shape) -> bool {
        self.begun <= shape.pivot() || self.turned
    }

    fn next(&self, shape: &Shape) -> Next<Name> {
        match (self.turned, self.last, self.due.last(), self.open.first()) {
            (true, _, Some(step), _) => Next::Run(Name::Undo(*step)),
            (true, _, None, Some(step)) => Next::Wait(Name::Undo(*step)),
            (true, _, None, None) => Next::Failed,
            (false, Some(Open), _, _) => Next::Wait(Name::Step(self.begun - 1)),
            (false, _, _, _) if self.begun < shape.len() => Next::Run(Name::Step(self.begun)),
            (false, _, _, _) => Next::Finished,
        }
    }

    fn begin(&mut self, name: Name) {
        match name {
            Name::Step(_) => {
                self.begun += 1;
                self.last = Some(Open);
            }
            Name::Undo(_) => self.open.extend(self.due.pop()),
        }
    }
}

/// What the world does next.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Begin what the plan says, if it says so.
    Begin,
    /// The step that is open is answered.
    Answer { refuse: bool },
    /// One of the open undos is done.
    Undone { which: usize },
    /// The owner gives up, if it still may.
    GiveUp,
    /// The owner, not knowing better, wishes to go on again.
    GoOn,
}

fn shapes() -> impl Strategy<Value = Shape> {
    (prop::collection::vec(any::<bool>(), 0..5), 0_usize..3)
        .prop_map(|(undos, behind_pivot)| Shape { undos, behind_pivot })
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = proptest::prop_oneof![
        6 => Just(Event::Begin),
        4 => Just(Event::Answer { refuse: false }),
        1 => Just(Event::Answer { refuse: true }),
        3 => any::<usize>().prop_map(|which| Event::Undone { which }),
        1 => Just(Event::GiveUp),
        1 => Just(Event::GoOn),
    ];
    prop::collection::vec(event, 1..60)
}

/// Lets the events happen to a log and to the model, and compares after each.
fn play(shape: &Shape, events: Vec<Event>) -> Result<(Vec<Entry<Name>>, Next<Name>), TestCaseError> {
    let plan = shape.plan();
    let (mut log, mut model, mut wish) = (Vec::new(), Model::default(), Forward);
    for event in events {
        match event {
            Event::Begin => {
                if let Next::Run(name) = model.next(shape) {
                    model.begin(name);
                    log.push(entry(name, Open));
                }
            }
            Event::Answer { refuse } => {
                let open = log.iter_mut().find(|e| matches!(e.step, Name::Step(_)) && e.state == Open);
                if let Some(open) = open {
                    let behind_pivot = model.begun > shape.pivot() + 1;
                    open.state = if refuse && !behind_pivot { Refused } else { Done };
                    model.settle_step(shape, open.state);
                }
            }
            Event::Undone { which } => {
                if !model.open.is_empty() {
                    let done = model.open.remove(which % model.open.len());
                    for e in log.iter_mut().filter(|e| e.step == Name::Undo(done)) {
                        e.state = Done;
                    }
                }
            }
            Event::GiveUp if model.may_turn(shape) => {
                wish = Backward;
                model.turn(shape);
            }
            Event::GoOn if log.iter().any(|e| matches!(e.step, Name::Undo(_)) || e.state == Refused) => {
                wish = Forward;
            }
            Event::GiveUp | Event::GoOn => {}
        }
        prop_assert_eq!(plan.next(&log, wish), Ok(model.next(shape)), "{:?} after {:?}", &log, event);
    }
    let next = model.next(shape);
    Ok((log, next))
}

proptest! {
    #[test]
    fn it_agrees_with_the_model_in_every_order_of_events(shape in shapes(), events in events()) {
        let (log, end) = play(&shape, events)?;
        let state = |name| log.iter().find(|e| e.step == name).map(|e| e.state);
        match end {
            Next::Finished => prop_assert!((0..shape.len()).all(|n| state(Name::Step(n)) == Some(Done))),
            Next::Failed => for n in 0..shape.len() {
                let begun = matches!(state(Name::Step(n)), Some(Open | Done));
                let undone = state(Name::Undo(n)) == Some(Done);
                prop_assert!(!begun || !shape.has_undo(n) || undone, "step {n} is not undone: {log:?}");
            },
            Next::Run(_) | Next::Wait(_) => {}
        }
    }

    #[test]
    fn no_log_makes_it_panic(shape in shapes(), log in prop::collection::vec((any::<bool>(), 0_usize..9, 0_usize..3), 0..12)) {
        let log: Vec<_> = log
            .into_iter()
            .map(|(undo, n, state)| entry(if undo { Name::Undo(n) } else { Name::Step(n) }, [Open, Done, Refused][state]))
            .collect();
        for wish in [Forward, Backward] {
            let _ = shape.plan().next(&log, wish);
        }
    }
}
