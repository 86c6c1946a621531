;; 16,384 messages, each the same 64 KiB: 1 GiB for the host to copy. Meets: the bound on answers.
(func (export "leasehold:policy/policy@0.1.0#evaluate") (param i32) (result i32)
  (local $entry i32)
  (drop (memory.grow (i32.const 4)))
  (local.set $entry (i32.const 262144))
  (loop $fill
    (i32.store (local.get $entry) (i32.const 65536))
    (i32.store offset=4 (local.get $entry) (i32.const 65536))
    (local.set $entry (i32.add (local.get $entry) (i32.const 8)))
    (br_if $fill (i32.lt_u (local.get $entry) (i32.const 393216))))
  (i32.store (i32.const 264) (i32.const 262144))
  (i32.store (i32.const 268) (i32.const 16384))
  (i32.const 256))
