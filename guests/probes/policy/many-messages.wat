;; 33 short messages. Meets: the number of messages.
(func (export "leasehold:policy/policy@0.1.0#evaluate") (param i32) (result i32)
  (local $entry i32)
  (local.set $entry (i32.const 1024))
  (loop $fill
    (i32.store (local.get $entry) (i32.const 16))
    (i32.store offset=4 (local.get $entry) (i32.const 5))
    (local.set $entry (i32.add (local.get $entry) (i32.const 8)))
    (br_if $fill (i32.lt_u (local.get $entry) (i32.const 1288))))
  (i32.store (i32.const 264) (i32.const 1024))
  (i32.store (i32.const 268) (i32.const 33))
  (i32.const 256))
