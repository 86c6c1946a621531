;; Allows the first request it sees and denies every other. A module that may not remember allows all.
(global $asked (mut i32) (i32.const 0))
(func (export "leasehold:policy/policy@0.1.0#evaluate") (param i32) (result i32)
  (i32.store8 (i32.const 260) (global.get $asked))
  (global.set $asked (i32.const 1))
  (i32.const 256))
