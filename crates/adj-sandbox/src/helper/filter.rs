//! Compiles verdicts about system calls to one program for the kernel's filter machine.
//!
//! The kernel translates the program for each sandbox, and then tries every number to learn which calls it need not ask about. So the
//! program is short, and finds a number by halving. It is put together from its end, because jumps only lead forward.
//! Must not know: which calls are refused, or why.

use std::collections::{BTreeMap, HashMap};

use libc::*;

pub(super) type Instruction = sock_filter;

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed,
    /// It fails with this error.
    Refused(i32),
    /// The same if any of the rules applies.
    RefusedIf(i32, Vec<Rule>),
}

/// Applies when all of its conditions hold.
pub(super) type Rule = Vec<Condition>;

/// Something about the lower half of an argument; the kernel looks at no more of those that are judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    argument: u32,
    mask: u32,
    values: Vec<u32>,
    /// Whether the masked argument is to be among the values, or not to be.
    is_among: bool,
}

/// The argument, masked, is one of these values.
pub(super) fn among(argument: u32, mask: u32, values: &[u32]) -> Condition {
    Condition { argument, mask, values: values.to_owned(), is_among: true }
}

/// The argument is one of these values.
pub(super) fn is(argument: u32, values: &[u32]) -> Condition {
    among(argument, u32::MAX, values)
}

/// The argument is something else.
pub(super) fn isnt(argument: u32, values: &[u32]) -> Condition {
    Condition { is_among: false, ..is(argument, values) }
}

/// The argument has all of these bits.
pub(super) fn has(argument: u32, bits: u32) -> Condition {
    among(argument, bits, &[bits])
}

/// The argument has one of these bits, or more.
pub(super) fn has_any(argument: u32, bits: u32) -> Condition {
    Condition { is_among: false, ..among(argument, bits, &[0]) }
}

/// The program for an architecture. A foreign calling convention ends the process; calls that are not listed get the verdict of the last one
/// before them, those before the first are allowed.
pub(super) fn compile(architecture: u32, verdicts: &BTreeMap<u32, Verdict>) -> Vec<Instruction> {
    const NUMBER: u32 = 0;
    const ARCHITECTURE: u32 = 4;
    let mut program = Backwards::default();
    let mut ranges: Vec<(u32, &Verdict)> = vec![(0, &Verdict::Allowed)];
    for (first, verdict) in verdicts {
        ranges.retain(|(other, _)| other != first);
        if ranges.last().is_none_or(|(_, last)| last != &verdict) {
            ranges.push((*first, verdict));
        }
    }
    let start = program.halve(&ranges);
    let start = program.load(NUMBER, start);
    let foreign = program.end(SECCOMP_RET_KILL_PROCESS);
    let start = program.jump(BPF_JEQ, architecture, start, foreign);
    program.load(ARCHITECTURE, start);
    program.code.reverse();
    program.code
}

/// A program of which the end is there already.
#[derive(Default)]
struct Backwards {
    /// The last instruction first.
    code: Vec<Instruction>,
    /// The nearest end with each answer.
    ends: HashMap<u32, Place>,
}

/// The number of an instruction, counted from the end.
#[derive(Clone, Copy)]
struct Place(usize);

impl Backwards {
    /// As far as a conditional jump reaches, when two instructions come in between.
    const NEAR: usize = u8::MAX as usize - 2;

    fn push(&mut self, code: u32, jt: u8, jf: u8, k: u32) -> Place {
        self.code.push(Instruction { code: code as u16, jt, jf, k });
        Place(self.code.len() - 1)
    }

    /// How many instructions are to be jumped over.
    fn distance(&self, to: Place) -> usize {
        self.code.len() - 1 - to.0
    }

    /// A place near by from which it goes on at `to`.
    fn near(&mut self, to: Place) -> Place {
        match self.distance(to) {
            0..=Self::NEAR => to,
            far => self.push(BPF_JMP | BPF_JA, 0, 0, far as u32),
        }
    }

    fn end(&mut self, answer: u32) -> Place {
        match self.ends.get(&answer) {
            Some(end) if self.distance(*end) <= Self::NEAR => *end,
            _ => {
                let end = self.push(BPF_RET | BPF_K, 0, 0, answer);
                self.ends.insert(answer, end);
                end
            }
        }
    }

    fn jump(&mut self, test: u32, value: u32, yes: Place, no: Place) -> Place {
        let (yes, no) = (self.near(yes), self.near(no));
        let (jt, jf) = (self.distance(yes) as u8, self.distance(no) as u8);
        self.push(BPF_JMP | test | BPF_K, jt, jf, value)
    }

    /// Loads a word, and goes on at `next`.
    fn load(&mut self, offset: u32, next: Place) -> Place {
        self.then(next);
        self.push(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset)
    }

    /// Makes sure that `next` is what follows.
    fn then(&mut self, next: Place) {
        match self.distance(next) {
            0 => {}
            far => drop(self.push(BPF_JMP | BPF_JA, 0, 0, far as u32)),
        }
    }

    /// Finds the range that the loaded number lies in.
    fn halve(&mut self, ranges: &[(u32, &Verdict)]) -> Place {
        if let [(_, verdict)] = ranges {
            return self.verdict(verdict);
        }
        let (lower, upper) = ranges.split_at(ranges.len() / 2);
        let first = upper[0].0;
        let (upper, lower) = (self.halve(upper), self.halve(lower));
        self.jump(BPF_JGE, first, upper, lower)
    }

    fn verdict(&mut self, verdict: &Verdict) -> Place {
        let refused = |errno: i32| SECCOMP_RET_ERRNO | errno as u32;
        match verdict {
            Verdict::Allowed => self.end(SECCOMP_RET_ALLOW),
            Verdict::Refused(errno) => self.end(refused(*errno)),
            Verdict::RefusedIf(errno, rules) => {
                let allowed = self.end(SECCOMP_RET_ALLOW);
                rules.iter().rev().fold(allowed, |otherwise, rule| {
                    let refused = self.end(refused(*errno));
                    rule.iter().rev().fold(refused, |next, condition| self.condition(condition, next, otherwise))
                })
            }
        }
    }

    fn condition(&mut self, condition: &Condition, holds: Place, fails: Place) -> Place {
        const ARGUMENTS: u32 = 16;
        let (found, mut next) = if condition.is_among { (holds, fails) } else { (fails, holds) };
        for value in condition.values.iter().rev() {
            next = self.jump(BPF_JEQ, *value, found, next);
        }
        if condition.mask != u32::MAX {
            self.then(next);
            next = self.push(BPF_ALU | BPF_AND | BPF_K, 0, 0, condition.mask);
        }
        // All architectures that are known here put the lower half first.
        self.load(ARGUMENTS + 8 * condition.argument, next)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    impl Verdict {
        /// Everything that arguments are compared with.
        pub(in crate::helper) fn values(&self) -> Vec<u32> {
            match self {
                Verdict::Allowed | Verdict::Refused(_) => Vec::new(),
                Verdict::RefusedIf(_, rules) => rules
                    .iter()
                    .flatten()
                    .flat_map(|condition| condition.values.iter().copied().chain([condition.mask]))
                    .collect(),
            }
        }
    }

    /// What the verdicts say, without any program.
    pub(in crate::helper) fn expected(verdicts: &BTreeMap<u32, Verdict>, call: u32, arguments: [u64; 6]) -> u32 {
        let holds = |condition: &Condition| {
            let argument = arguments[condition.argument as usize] as u32 & condition.mask;
            condition.values.contains(&argument) == condition.is_among
        };
        match verdicts.range(..=call).next_back().map_or(&Verdict::Allowed, |(_, verdict)| verdict) {
            Verdict::Refused(errno) => SECCOMP_RET_ERRNO | *errno as u32,
            Verdict::RefusedIf(errno, rules) if rules.iter().any(|rule| rule.iter().all(holds)) => {
                SECCOMP_RET_ERRNO | *errno as u32
            }
            Verdict::Allowed | Verdict::RefusedIf(..) => SECCOMP_RET_ALLOW,
        }
    }

    /// What the kernel would answer: a small machine for the few instructions that filters are made of.
    pub(in crate::helper) fn answer(program: &[Instruction], architecture: u32, call: u32, arguments: [u64; 6]) -> u32 {
        let mut data = [call, architecture, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for (number, argument) in arguments.into_iter().enumerate() {
            (data[4 + 2 * number], data[5 + 2 * number]) = (argument as u32, (argument >> 32) as u32);
        }
        let (mut at, mut accumulator) = (0, 0u32);
        loop {
            let step = &program[at];
            let jump = |is_so: bool| at + 1 + usize::from(if is_so { step.jt } else { step.jf });
            at = match u32::from(step.code) {
                code if code == BPF_LD | BPF_W | BPF_ABS => {
                    accumulator = data[step.k as usize / 4];
                    at + 1
                }
                code if code == BPF_ALU | BPF_AND | BPF_K => {
                    accumulator &= step.k;
                    at + 1
                }
                code if code == BPF_JMP | BPF_JA => at + 1 + step.k as usize,
                code if code == BPF_JMP | BPF_JEQ | BPF_K => jump(accumulator == step.k),
                code if code == BPF_JMP | BPF_JGT | BPF_K => jump(accumulator > step.k),
                code if code == BPF_JMP | BPF_JGE | BPF_K => jump(accumulator >= step.k),
                code if code == BPF_RET | BPF_K => return step.k,
                code => panic!("unknown instruction {code:#x}"),
            };
        }
    }

    #[test]
    fn jumps_reach_as_far_as_the_program_is_long() {
        let rule = |value: u32| vec![is(1, &[value, value + 1]), has(0, 6), isnt(2, &[value])];
        let rules: Vec<Rule> = (0..40).map(rule).collect();
        let mut verdicts: BTreeMap<u32, Verdict> =
            (1..60).map(|call| (3 * call, Verdict::RefusedIf(call as i32, rules.clone()))).collect();
        verdicts.extend((1..60).map(|call| (3 * call + 1, Verdict::Refused(EPERM))));
        let program = compile(7, &verdicts);
        assert!(program.len() > 10_000, "{} instructions", program.len());
        for call in 0..200 {
            for arguments in
                [[0; 6], [6; 6], [6, 7, 6, 0, 0, 0], [7, 39, 39, 0, 0, 0], [7, 40, 39, 0, 0, 0], [6, 90, 0, 0, 0, 0]]
            {
                let said = answer(&program, 7, call, arguments);
                assert_eq!(said, expected(&verdicts, call, arguments), "{call} {arguments:?}");
            }
        }
        assert_eq!(answer(&program, 8, 0, [0; 6]), SECCOMP_RET_KILL_PROCESS);
    }
}
