//! The store of a terminal, on a flash whose power is cut.
//!
//! | file | shows |
//! | --- | --- |
//! | `basics` | what it does when nothing goes wrong |
//! | `cuts` | a cut at every byte of a run, and at random in many runs |
//! | `damage` | flipped bits, spoiled pages, worn cells, a foreign flash |
//! | `controls` | that each rule of the store is needed: without it the tests fail |
//! | `world` | the terminal, gateway, paper and human around it |

mod basics;
mod controls;
mod cuts;
mod damage;
mod world;
