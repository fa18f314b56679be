//! The store of a terminal, on a flash whose power is cut.
//!
//! | file | shows |
//! | --- | --- |
//! | `basics` | what it does when nothing goes wrong |
//! | `cuts` | a cut at every byte of a run, and at random in many runs |
//! | `damage` | flipped bits, spoiled pages, worn cells, a foreign flash |
//! | `slots` | traces of cuts, of earlier laps and of wear in single slots |
//! | `pages` | heads and pages that say nothing, or the wrong thing |
//! | `reading` | how much is read to find something |
//! | `refusals` | a flash that refuses any one operation |
//! | `controls` | that each rule of the store is needed: without it the tests fail |
//! | `world` | the terminal, gateway, paper and human around it |

mod basics;
mod controls;
mod cuts;
mod damage;
mod pages;
mod reading;
mod refusals;
mod slots;
mod world;
