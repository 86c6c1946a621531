//! A moment by one of Go's layouts, in UTC.

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// Year, month and day of the month, by the days since 1970-01-01 (civil_from_days of Howard Hinnant).
fn date(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let of_era = z % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// Every part of the layout that Go knows stands for its part of the moment, the rest for itself. Fractions of seconds and zones other
/// than UTC's are left as they stand.
pub(super) fn formatted(layout: &str, millis: u64) -> String {
    // Later than the year 9999 no clock goes.
    let seconds = (millis / 1_000).min(253_402_300_799);
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let name = |names: &[&'static str], at: u64| -> &'static str {
        names.get(usize::try_from(at).unwrap_or(0)).copied().unwrap_or_default()
    };
    let (month_name, day_name) = (name(&MONTHS, month - 1), name(&DAYS, seconds / 86_400 % 7));
    let half = match hour % 12 {
        0 => 12,
        other => other,
    };
    let short = |name: &'static str| name.get(..3).unwrap_or_default().to_owned();
    // Longer ones first.
    let parts: [(&str, String); 25] = [
        ("January", month_name.to_owned()),
        ("Jan", short(month_name)),
        ("Monday", day_name.to_owned()),
        ("Mon", short(day_name)),
        ("MST", "UTC".to_owned()),
        ("2006", format!("{year:04}")),
        ("Z07:00", "Z".to_owned()),
        ("Z0700", "Z".to_owned()),
        ("-07:00", "+00:00".to_owned()),
        ("-0700", "+0000".to_owned()),
        ("-07", "+00".to_owned()),
        ("01", format!("{month:02}")),
        ("02", format!("{day:02}")),
        ("_2", format!("{day:2}")),
        ("03", format!("{half:02}")),
        ("04", format!("{minute:02}")),
        ("05", format!("{second:02}")),
        ("06", format!("{:02}", year % 100)),
        ("15", format!("{hour:02}")),
        ("PM", (if hour < 12 { "AM" } else { "PM" }).to_owned()),
        ("pm", (if hour < 12 { "am" } else { "pm" }).to_owned()),
        ("1", month.to_string()),
        ("2", day.to_string()),
        ("3", half.to_string()),
        ("4", minute.to_string()),
    ];
    let mut text = String::new();
    let mut rest = layout;
    while let Some(letter) = rest.chars().next() {
        match parts.iter().find(|(part, _)| rest.starts_with(part)) {
            Some((part, value)) => {
                text.push_str(value);
                rest = rest.get(part.len()..).unwrap_or_default();
            }
            None if letter == '5' => {
                text.push_str(&second.to_string());
                rest = rest.get(1..).unwrap_or_default();
            }
            None => {
                text.push(letter);
                rest = rest.get(letter.len_utf8()..).unwrap_or_default();
            }
        }
    }
    text
}
