;; One message that would colour a terminal, go back to its line's start, and turn what follows around. Meets: what may be said.
(data (i32.const 600) "\1b[31mRED\0d\e2\80\ae!")
(data (i32.const 300) "\58\02\00\00\0d\00\00\00")
(func (export "leasehold:policy/policy@0.1.0#evaluate") (param i32) (result i32)
  (i32.store (i32.const 264) (i32.const 300))
  (i32.store (i32.const 268) (i32.const 1))
  (i32.const 256))
