;; Says both "allowed" and "denied".
(func (export "leasehold:acl/evaluator@0.1.0#[method]policy-set.evaluate")
  (param i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (i32.store8 (i32.const 260) (i32.const 2))
  (i32.const 256))
