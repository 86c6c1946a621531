;; Two TTL ceilings, of 7200 and 3600 seconds: the least counts. Well-behaved.
(data (i32.const 300) "\00\00\00\00\20\1c\00\00" "\00\00\00\00\00\00\00\00\00\00\00\00" "\00\00\00\00\10\0e\00\00")
(func (export "leasehold:policy/policy@0.1.0#evaluate") (param i32) (result i32)
  (i32.store (i32.const 272) (i32.const 300))
  (i32.store (i32.const 276) (i32.const 2))
  (i32.const 256))
