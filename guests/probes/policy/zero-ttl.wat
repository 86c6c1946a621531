;; A TTL ceiling of zero, which elsewhere means "none". Meets: the bound on obligations.
(data (i32.const 300) "\00\00\00\00\00\00\00\00")
(func (export "leasehold:policy/policy@0.1.0#evaluate") (param i32) (result i32)
  (i32.store (i32.const 272) (i32.const 300))
  (i32.store (i32.const 276) (i32.const 1))
  (i32.const 256))
