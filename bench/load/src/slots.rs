//! Numbered places for connections; the number is the epoll token.

/// A place that empties is given out again only after [`Slots::recycle`]: an event for the old connection may still
/// wait in the batch at hand and must not reach a new one.
pub struct Slots<T> {
    places: Vec<Option<T>>,
    free: Vec<usize>,
    emptied: Vec<usize>,
}

impl<T> Slots<T> {
    pub fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new(), emptied: Vec::new() }
    }

    pub fn insert(&mut self, value: T) -> usize {
        let index = self.free.pop().unwrap_or(self.places.len());
        if index == self.places.len() {
            self.places.push(None);
        }
        self.places[index] = Some(value);
        index
    }

    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.places.get_mut(index)?.as_mut()
    }

    pub fn remove(&mut self, index: usize) {
        if self.places[index].take().is_some() {
            self.emptied.push(index);
        }
    }

    /// Call after each batch of events.
    pub fn recycle(&mut self) {
        self.free.append(&mut self.emptied);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_not_reused_within_a_batch() {
        let mut slots = Slots::new();
        assert_eq!((slots.insert('a'), slots.insert('b')), (0, 1));
        slots.remove(0);
        slots.remove(0);
        assert_eq!(slots.insert('c'), 2);
        assert!(slots.get_mut(0).is_none());
        slots.recycle();
        assert_eq!((slots.insert('d'), slots.insert('e')), (0, 3));
        assert_eq!(slots.get_mut(0), Some(&mut 'd'));
    }
}
