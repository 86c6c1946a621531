;; What all policy probes have in common: memory, `describe`, a `configure` that takes everything, and room for answers.
(memory (export "memory") 4)
(global $next (mut i32) (i32.const 8192))
(func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
  (local $at i32)
  (local.set $at
    (i32.and
      (i32.add (global.get $next) (i32.sub (local.get $align) (i32.const 1)))
      (i32.sub (i32.const 0) (local.get $align))))
  (global.set $next (i32.add (local.get $at) (local.get $size)))
  (local.get $at))

(data (i32.const 16) "probe")
(data (i32.const 32) "1.0.0")
;; metadata: name, version, description, extra
(data (i32.const 64) "\10\00\00\00\05\00\00\00" "\20\00\00\00\05\00\00\00" "\10\00\00\00\05\00\00\00")
(func (export "leasehold:policy/policy@0.1.0#describe") (result i32) (i32.const 64))

;; result<_, string>: the first byte is 0 for ok
(func (export "leasehold:policy/policy@0.1.0#configure") (param i32 i32) (result i32) (i32.const 128))

;; result<verdict, string>: ok byte at 256, decision at 260 (0 allow, 1 deny), messages at 264, obligations at 272
