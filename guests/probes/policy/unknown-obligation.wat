;; Obliges the host to something of a later version. Meets: what is not understood refuses.
(data (i32.const 300) "\02\00\00\00" "\10\00\00\00\05\00\00\00" "\10\00\00\00\05\00\00\00")
(func (export "leasehold:policy/policy@0.1.0#evaluate") (param i32) (result i32)
  (i32.store (i32.const 272) (i32.const 300))
  (i32.store (i32.const 276) (i32.const 1))
  (i32.const 256))
