;; Traps at the third request of each instance.
(global $asked (mut i32) (i32.const 0))
(func (export "leasehold:acl/evaluator@0.1.0#[method]policy-set.evaluate")
  (param i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (global.set $asked (i32.add (global.get $asked) (i32.const 1)))
  (if (i32.eq (global.get $asked) (i32.const 3)) (then (unreachable)))
  (i32.const 256))
