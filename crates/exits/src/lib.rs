//! The catalogue of exits: each row's name, guest code, needs and expectations
