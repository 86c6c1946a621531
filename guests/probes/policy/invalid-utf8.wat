;; A message that is no UTF-8. Meets: the host's check of every string.
(data (i32.const 300) "\40\01\00\00\03\00\00\00")
(data (i32.const 320) "a\ff\fe")
(func (export "leasehold:policy/policy@0.1.0#evaluate") (param i32) (result i32)
  (i32.store (i32.const 264) (i32.const 300))
  (i32.store (i32.const 268) (i32.const 1))
  (i32.const 256))
