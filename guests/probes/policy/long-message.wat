;; One message of 1,025 bytes. Meets: the length of a message.
(data (i32.const 300) "\50\02\00\00\01\04\00\00")
(func (export "leasehold:policy/policy@0.1.0#evaluate") (param i32) (result i32)
  (i32.store (i32.const 264) (i32.const 300))
  (i32.store (i32.const 268) (i32.const 1))
  (i32.const 256))
