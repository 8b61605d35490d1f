//! Generics, traits, closures, errors, formatting, floats: little, since rustc is slow emulated.
use std::fmt;

#[derive(Clone, Debug, Default, PartialEq, PartialOrd)]
pub struct Point<T> {
    pub x: T,
    pub y: T,
}

pub trait Area {
    fn area(&self) -> f64;
    fn twice(&self) -> f64 {
        2.0 * self.area()
    }
}

impl Area for Point<f64> {
    fn area(&self) -> f64 {
        (self.x * self.y).abs().sqrt() + 0.1f64.sin() + self.x.powf(1.7)
    }
}

#[derive(Debug)]
pub enum Failure {
    Empty,
    Wrong { at: usize, why: String },
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Empty => write!(out, "nothing"),
            Failure::Wrong { at, why } => write!(out, "{why} at {at:>5}"),
        }
    }
}

pub fn parse(text: &str) -> Result<Vec<i64>, Failure> {
    if text.is_empty() {
        return Err(Failure::Empty);
    }
    text.split(',')
        .enumerate()
        .map(|(at, word)| {
            word.trim().parse::<i64>().map_err(|e| Failure::Wrong { at, why: e.to_string() })
        })
        .collect()
}

pub fn vectors(left: &[f32], right: &[f32]) -> f32 {
    left.iter().zip(right).map(|(a, b)| a.mul_add(*b, 0.25)).sum()
}

pub const TABLE: [u128; 4] = [1, 1 << 70, u128::MAX / 7, 0x0123_4567_89ab_cdef];
