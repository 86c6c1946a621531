//! A map that forgets what was used longest ago. Small: the oldest is found by looking at all.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

#[derive(Debug)]
pub(crate) struct Lru<K, V> {
    entries: HashMap<K, Entry<V>>,
    turn: u64,
    weight: usize,
    max_entries: usize,
    max_weight: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    weight: usize,
    used: u64,
}

impl<K: Clone + Eq + Hash, V> Lru<K, V> {
    pub(crate) fn new(max_entries: usize, max_weight: usize) -> Self {
        Self { entries: HashMap::new(), turn: 0, weight: 0, max_entries: max_entries.max(1), max_weight }
    }

    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.turn += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used = self.turn;
        Some(&mut entry.value)
    }

    pub(crate) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let entry = self.entries.remove(key)?;
        self.weight -= entry.weight;
        Some(entry.value)
    }

    /// Puts one in and returns what had to leave for it. The newest stays, however heavy it is.
    pub(crate) fn put(&mut self, key: K, value: V, weight: usize) -> Vec<V> {
        let mut left: Vec<V> = self.remove(&key).into_iter().collect();
        while !self.entries.is_empty()
            && (self.entries.len() >= self.max_entries || self.weight.saturating_add(weight) > self.max_weight)
        {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone());
            left.extend(oldest.and_then(|key| self.remove(&key)));
        }
        self.turn += 1;
        self.weight = self.weight.saturating_add(weight);
        self.entries.insert(key, Entry { value, weight, used: self.turn });
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_used_longest_ago_leaves_first() {
        let mut lru = Lru::new(2, usize::MAX);
        lru.put("a", 1, 0);
        lru.put("b", 2, 0);
        lru.get("a");

        assert_eq!(lru.put("c", 3, 0), [2]);

        assert!(lru.get("a").is_some() && lru.get("c").is_some() && lru.get("b").is_none());
    }

    #[test]
    fn weights_never_add_up_to_more_than_allowed() {
        let mut lru = Lru::new(10, 100);
        lru.put("a", 1, 60);
        assert_eq!(lru.put("b", 2, 60), [1]);
        assert_eq!(lru.put("b", 3, 10), [2]);
        assert_eq!(lru.put("c", 4, 90), Vec::<i32>::new());
        assert_eq!(lru.put("d", 5, 1000).len(), 2);
        assert_eq!(lru.weight, 1000);
    }
}
