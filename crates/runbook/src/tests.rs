//! The whole crate against a world in memory: plans, refusals, and executions that are killed, raced and taken over.

mod ahead;
mod approvals;
mod by_hand;
mod clients;
mod conditions;
mod crash;
mod evidence;
mod guards;
mod in_place;
mod matrix;
mod optional;
mod own_steps;
mod pauses;
mod planned;
mod plans;
mod predictions;
mod races;
mod refusals;
mod register_moves;
mod runs;
mod shipped;
mod sight;
mod statements;
mod steps;
mod tampered;
mod world;
