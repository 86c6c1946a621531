;; Denies the first request of each instance and grants the later ones: what a corrupted instance might do.
(global $asked (mut i32) (i32.const 0))
(func (export "leasehold:acl/evaluator@0.1.0#[method]policy-set.evaluate")
  (param i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (local $before i32)
  (local.set $before (global.get $asked))
  (global.set $asked (i32.const 1))
  (select (i32.const 256) (i32.const 512) (local.get $before)))
